//! The manual pages: `outrigger(1)` and one for each command, from the flags' own help.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::form::{Reader, command};

/// Writes `outrigger.1`, `outrigger-sidecar.1` and so on into the directory, which is made.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut root = command(Reader::Human);
    root.build();
    pages(&root, directory)
}

fn pages(command: &Command, directory: &Path) -> io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let page = page(command, &name)?;
    std::fs::write(directory.join(format!("{name}.1")), page)?;
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        pages(below, directory)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let spoken = name.replace('-', " ");
    let usage = match command.get_subcommands().next() {
        Some(_) => format!("{spoken} <command> [flags]"),
        None => format!("{spoken} [flags]{}", operands(command)),
    };
    let shown = command
        .clone()
        .override_usage(usage)
        .version(outrigger::app::version::VERSION);
    let mut text = Vec::new();
    let man = Man::new(shown);
    man.render_title(&mut text)?;
    text = titled(&text, name);
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    more(name).to_writer(&mut text)?;
    Ok(text)
}

/// The page's own title: `roff` leaves out a date that is empty, and what follows moves up.
fn titled(text: &[u8], name: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| {
        if !line.starts_with(".TH ") {
            return format!("{line}\n");
        }
        let (name, version) = (name.to_uppercase(), outrigger::app::version::VERSION);
        format!(".TH {name} 1 \"\" \"outrigger {version}\" \"User Commands\"\n")
    });
    lines.collect::<String>().into_bytes()
}

fn operands(command: &Command) -> String {
    let positionals = command.get_positionals().map(|operand| {
        let name = operand.get_value_names().and_then(|names| names.first());
        let name = name.map_or(operand.get_id().as_str(), |name| name.as_str());
        format!(
            " <{}>{}",
            name.to_lowercase(),
            if operand.get_num_args().is_some_and(|n| n.max_values() > 1) {
                "..."
            } else {
                ""
            }
        )
    });
    positionals.collect()
}

/// What no flag tells: files, signals, exit codes, examples.
fn more(name: &str) -> Roff {
    let mut page = Roff::new();
    match name {
        "outrigger-sidecar" => {
            examples(&mut page);
            files(&mut page);
            signals(&mut page);
        }
        "outrigger" => files(&mut page),
        _ => {}
    }
    exit_status(&mut page);
    let others = match name {
        "outrigger" => "prometheus(1)",
        _ => "outrigger(1), prometheus(1)",
    };
    page.control("SH", ["SEE ALSO"]).text([roman(others)]);
    page
}

fn examples(page: &mut Roff) {
    page.control("SH", ["EXAMPLES"]);
    page.text([roman(
        "Beside a Prometheus of this machine, shipping its blocks and answering queriers:",
    )]);
    page.control("PP", []).control("EX", []);
    page.text([roman("outrigger sidecar \\")]);
    page.text([roman("  --prometheus.url=http://localhost:9090/ \\")]);
    page.text([roman("  --tsdb.path=/var/lib/prometheus/metrics2 \\")]);
    page.text([roman("  --objstore.config-file=/etc/outrigger/bucket.yml")]);
    page.control("EE", []);
}

fn files(page: &mut Roff) {
    page.control("SH", ["FILES"]);
    let rows: &[(&str, &str)] = &[
        (
            "/etc/default/outrigger",
            "The arguments that the systemd service gives to outrigger sidecar, as ARGS.",
        ),
        (
            "<tsdb.path>/thanos.shipper.json",
            "Which blocks are in the bucket. Prometheus reads it where it delays compaction.",
        ),
        (
            "<tsdb.path>/outrigger.flushed.json",
            "What --shipper.flush-on-shutdown put into the bucket, until Prometheus' own is there.",
        ),
        (
            "<tsdb.path>/thanos/upload/",
            "Blocks under way, as hard links: Prometheus may delete its own; and how far each is.",
        ),
    ];
    for (path, what) in rows {
        entry(page, italic(*path), what);
    }
}

fn signals(page: &mut Roff) {
    page.control("SH", ["SIGNALS"]);
    entry(
        page,
        bold("SIGTERM, SIGINT"),
        "End: requests in flight are given --http-grace-period and --grpc-grace-period.",
    );
    entry(
        page,
        bold("SIGHUP"),
        "Is told in the log and does nothing; files are watched.",
    );
}

fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    entry(page, bold("0"), "Ended as asked.");
    entry(
        page,
        bold("1"),
        "Could not be set up, or a part of it failed; the log says why.",
    );
    entry(page, bold("2"), "The command line is wrong.");
}

fn entry(page: &mut Roff, term: Inline, what: &str) {
    page.control("TP", []).text([term]).text([roman(what)]);
}
