//! The flags of `outrigger bench`, and what its words lead to.

use super::*;
use crate::objstore::PayloadSigning;

fn upload(flags: &[&str]) -> UploadBenchArgs {
    let words = ["bench", "upload"].iter().chain(flags).copied();
    match run(&words.collect::<Vec<_>>()) {
        Ok(Invocation::Run(cli)) => match cli.command {
            Command::Bench(BenchCommand::Upload(args)) => *args,
            other => panic!("{flags:?} lead to {other:?}"),
        },
        other => panic!("{flags:?}: {other:?}"),
    }
}

fn bench_problem(flag: &str) -> String {
    problem(&["bench", "upload", flag])
}

#[test]
fn every_value_arrives() {
    let args = upload(&[
        "--objstore.config=type: FILESYSTEM",
        "--size=2GB",
        "--file-size",
        "64 MiB",
        "--scratch=/disk",
        "--data=/block",
        "--io.engine=pread",
        "--io.buffers=8",
        "--s3.payload-signing=never",
        "--part-size=16MiB",
        "--concurrency=2",
        "--duration=1m30s",
        "--sweep=concurrency,part-size",
        "--output=json",
    ]);
    assert_eq!(args.objstore.config.as_str(), "type: FILESYSTEM");
    assert_eq!(args.load.size.bytes(), 2_000_000_000);
    assert_eq!(args.load.file_size.bytes(), 64 << 20);
    assert_eq!(args.load.scratch, Some(PathBuf::from("/disk")));
    assert_eq!(args.load.data, Some(PathBuf::from("/block")));
    assert_eq!(args.engine.engine, EngineChoice::Pread);
    assert_eq!(args.engine.buffers, 8);
    assert_eq!(args.s3.payload_signing, PayloadSigning::Never);
    assert_eq!(args.engine.part_size.map(|size| size.get()), Some(16 << 20));
    assert_eq!(args.engine.concurrency.get(), 2);
    assert_eq!(args.run.duration.to_string(), "1m30s");
    assert!(args.run.sweep.part_size && args.run.sweep.concurrency);
    assert_eq!(args.run.output, OutputFormat::Json);
}

#[test]
fn defaults_name_their_engine_and_sweep_nothing() {
    let args = upload(&[]);
    assert_eq!(args.load.size.bytes(), 4 << 30);
    assert_eq!(args.load.file_size.bytes(), 512 << 20);
    assert_eq!((args.load.scratch, args.load.data), (None, None));
    assert_eq!(args.engine.engine, EngineChoice::Uring);
    assert_eq!(args.engine.part_size, None);
    assert!(!args.run.sweep.is_any() && upload(&["--sweep="]).run.sweep == args.run.sweep);
    assert_eq!(args.run.output, OutputFormat::Table);
}

#[test]
fn bad_values_say_what_is_good() {
    for (flag, text) in [
        (
            "--io.engine=auto",
            "a bench names its engine, so that it cannot silently measure the fallback: uring or \
             pread (flag '--io.engine')",
        ),
        (
            "--io.engine=sim",
            "enum value must be one of uring,pread, got 'sim' (flag '--io.engine')",
        ),
        (
            "--sweep=part-size,engine",
            "enum value must be one of part-size,concurrency, got 'engine' (flag '--sweep')",
        ),
        ("--size=0", "a size must be above 0 (flag '--size')"),
        (
            "--part-size=big",
            "\"big\" is no size: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB after it \
             (flag '--part-size')",
        ),
        (
            "--concurrency=0",
            "number would be zero for non-zero type (flag '--concurrency')",
        ),
        ("--tsdb.path=x", "unknown long flag '--tsdb.path'"),
        ("stray", "unexpected stray"),
    ] {
        assert_eq!(bench_problem(flag), text, "{flag}");
    }
}

#[test]
fn a_command_of_a_command_is_asked_for_and_helped_with() {
    assert_eq!(problem(&["bench"]), "command not specified");
    assert_eq!(
        problem(&["bench", "download"]),
        "expected command but got \"download\""
    );
    assert_eq!(
        problem(&["sidecar", "--size=1"]),
        "unknown long flag '--size'"
    );
    let upload = printed(&["bench", "upload", "--help"]);
    assert!(upload.contains("--sweep") && upload.contains("Usage: outrigger bench upload"));
    let bench = printed(&["bench", "--help"]);
    assert!(
        bench.contains("upload") && !bench.contains("--sweep"),
        "{bench}"
    );
    assert!(printed(&["--help"]).contains("bench"));
    assert!(
        upload
            .lines()
            .all(|line| line.chars().count() <= help::WIDTH),
        "{upload}"
    );
}

#[test]
fn the_flags_are_those_of_the_committed_list() {
    let mut root = Cli::command();
    root.build();
    let bench = root.find_subcommand("bench").unwrap();
    let upload = bench.find_subcommand("upload").unwrap();
    let rows = upload.get_arguments().filter(|arg| !arg.is_global_set());
    let mut actual: Vec<String> = rows
        .filter(|arg| arg.get_id() != "help")
        .map(|arg| {
            let default = arg
                .get_default_values()
                .first()
                .and_then(|value| value.to_str());
            let default = default.filter(|value| !value.is_empty()).unwrap_or("\"\"");
            format!("{}\t{default}", arg.get_long().unwrap())
        })
        .collect();
    actual.sort();
    let list = include_str!("../../../../tests/golden/bench_flags.txt");
    let committed: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(actual, committed);
}
