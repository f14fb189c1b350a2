//! The command line against the committed list of flags, and the help that shows them.

use std::any::TypeId;

use clap::Arg;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FlagRow {
    name: String,
    default: String,
    kind: String,
    is_hidden: bool,
    is_repeatable: bool,
}

fn committed(list: &str) -> Vec<FlagRow> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let [name, default, kind, hidden, repeatable] = line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("five columns: {line}");
        };
        FlagRow {
            name: name.to_owned(),
            default: default.to_owned(),
            kind: kind.to_owned(),
            is_hidden: hidden == "hidden",
            is_repeatable: repeatable == "repeatable",
        }
    });
    rows.collect()
}

fn declared(arg: &Arg) -> FlagRow {
    let name = arg.get_long().unwrap().to_owned();
    let asks = matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
    let default = match arg.get_default_values() {
        _ if asks => "-".to_owned(),
        [] => "-".to_owned(),
        [value] if value.is_empty() => "\"\"".to_owned(),
        [value] => value.to_str().unwrap().to_owned(),
        more => panic!("{name} has the defaults {more:?}"),
    };
    FlagRow {
        kind: if asks {
            "bool".to_owned()
        } else {
            kind(arg, &name)
        },
        is_hidden: arg.is_hide_set(),
        is_repeatable: matches!(arg.get_action(), ArgAction::Append),
        name,
        default,
    }
}

fn kind(arg: &Arg, name: &str) -> String {
    let known = [
        (TypeId::of::<bool>(), "bool"),
        (TypeId::of::<String>(), "string"),
        (TypeId::of::<PathBuf>(), "path"),
        (TypeId::of::<OptionalPath>(), "path"),
        (TypeId::of::<InlineYaml>(), "yaml"),
        (TypeId::of::<GoDuration>(), "go-duration"),
        (TypeId::of::<PromDuration>(), "prometheus-duration"),
        (TypeId::of::<TimeOrDuration>(), "time-or-duration"),
        (TypeId::of::<PrometheusUrl>(), "url"),
        (TypeId::of::<f64>(), "float"),
        (TypeId::of::<i64>(), "int"),
        (TypeId::of::<u64>(), "uint64"),
        (TypeId::of::<ByteSize>(), "bytes"),
        (TypeId::of::<usize>(), "uint64"),
    ];
    let value = arg.get_value_parser().type_id();
    if let Some((_, kind)) = known.iter().find(|(known, _)| value == *known) {
        return (*kind).to_owned();
    }
    // A closed list tells its members in its error.
    let error = problem(&["sidecar", &format!("--{name}=no such choice")]);
    let choices = error.strip_prefix("enum value must be one of ");
    let choices = choices.and_then(|rest| rest.split_once(", got "));
    let (choices, _) = choices.unwrap_or_else(|| panic!("type of --{name}: {error}"));
    format!("enum({choices})")
}

#[test]
fn the_flags_are_those_of_the_reference_and_ours() {
    let mut root = Cli::command();
    root.build();
    let of_root = root.get_arguments();
    let of_sidecar = root.find_subcommand("sidecar").unwrap().get_arguments();
    let mut actual: Vec<FlagRow> = of_root.chain(of_sidecar).map(declared).collect();
    actual.sort();
    // Global flags are declared for the program and, by clap, for its commands.
    actual.dedup();

    let reference = committed(include_str!("../../../../tests/golden/flags.txt"));
    let own = committed(include_str!("../../../../tests/golden/own_flags.txt"));
    assert!(
        own.iter()
            .all(|own| reference.iter().all(|flag| flag.name != own.name))
    );
    let mut expected: Vec<FlagRow> = reference.into_iter().chain(own).collect();
    expected.sort();
    for flag in &expected {
        assert!(actual.contains(flag), "not declared so: {flag:?}");
    }
    for flag in &actual {
        assert!(expected.contains(flag), "not in the lists: {flag:?}");
    }
    assert_eq!(actual, expected);
}

#[test]
fn the_help_shows_every_flag_that_is_not_hidden() {
    let help = printed(&["sidecar", "--help"]);
    // Without line breaks within a description.
    let words: Vec<&str> = help.split_whitespace().collect();
    let words = words.join(" ");
    for flag in committed(include_str!("../../../../tests/golden/flags.txt")) {
        if flag.name == "version" {
            continue;
        }
        let shown = match flag.kind.as_str() {
            "bool" if flag.name != "help" => format!("--[no-]{}\n", flag.name),
            _ => format!("--{}", flag.name),
        };
        assert_eq!(help.contains(&shown), !flag.is_hidden, "{shown}");
        let has_default = !matches!(flag.default.as_str(), "-" | "\"\"" | "false");
        if has_default && !flag.is_hidden {
            assert!(
                words.contains(&format!("[default: {}]", flag.default)),
                "{flag:?}"
            );
        }
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= help::WIDTH),
        "{help}"
    );
    for heading in [
        "HTTP server:",
        "gRPC server:",
        "Prometheus:",
        "Shipper:",
        "Logging:",
    ] {
        assert!(help.lines().any(|line| line == heading), "{heading}");
    }
}
