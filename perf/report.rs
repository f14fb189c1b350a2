//! The tables, as Markdown, so that they can stand in `RESULTS.md` as printed.

use std::time::Duration;

use crate::block::Load;
use crate::follow::Follow;
use crate::latency::Latency;
use crate::query::QueryRun;
use crate::s3::{Cell, Checks, S3Run, Scheme, Sender};
use crate::ship::{Cache, Carrier, Figures, Run};
use crate::start::Start;
use crate::store::{Answerer, Extent, StoreRun};

const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// Everything that was measured; what was left out is empty.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) head: &'a str,
    pub(crate) load: &'a Load,
    pub(crate) store: &'a [StoreRun],
    pub(crate) query: &'a [QueryRun],
    pub(crate) s3: &'a [S3Run],
    pub(crate) shipping: &'a [Run],
    pub(crate) latency: Option<&'a Latency>,
    pub(crate) start: Option<&'a Start>,
    pub(crate) follow: Option<&'a Follow>,
}

/// One column of the shipping tables.
struct Column {
    title: &'static str,
    decimals: usize,
    of: fn(&Figures, f64) -> Option<f64>,
}

/// `f64` is the size of the blocks, GiB.
const COLUMNS: [Column; 6] = [
    Column {
        title: "CPU s/GiB",
        decimals: 2,
        of: |run, gib| Some((run.user_ms + run.system_ms) as f64 / 1000.0 / gib),
    },
    Column {
        title: "of it user",
        decimals: 2,
        of: |run, gib| Some(run.user_ms as f64 / 1000.0 / gib),
    },
    Column {
        title: "GiB/s",
        decimals: 2,
        of: |run, gib| Some(gib / run.wall.as_secs_f64()),
    },
    Column {
        title: "peak RSS MiB",
        decimals: 1,
        of: |run, _| Some(run.rss_peak_bytes as f64 / MIB),
    },
    Column {
        title: "anon RSS at the end MiB",
        decimals: 1,
        of: |run, _| Some(run.rss_anon_bytes as f64 / MIB),
    },
    Column {
        title: "source left in cache MiB",
        decimals: 0,
        of: |run, _| Some(run.cached_bytes? as f64 / MIB),
    },
];

#[expect(
    clippy::print_stdout,
    reason = "the tables are what the program is for"
)]
pub(crate) fn print(report: &Report<'_>) {
    println!("{}\n\n{}", report.head, load_line(report.load));
    let gib = report.load.size_bytes() as f64 / GIB;
    if !report.store.is_empty() {
        println!("\n{}", store_table(report.store));
    }
    if !report.query.is_empty() {
        println!("\n{}", query_table(report.query));
    }
    if !report.s3.is_empty() {
        println!("\n{}", s3_table(report.s3, gib));
    }
    if !report.shipping.is_empty() {
        println!("\n{}", ship_table(report.shipping, gib));
    }
    if let Some(latency) = report.latency {
        println!("\n{}", latency_table(latency));
    }
    if let Some(follow) = report.follow {
        println!("\n{}", follow_table(follow));
    }
    if let Some(start) = report.start {
        println!("\n{}", start_table(start));
    }
}

/// The tables of a run that was about nothing but StoreAPI.
#[expect(
    clippy::print_stdout,
    reason = "the tables are what the program is for"
)]
pub(crate) fn print_store(head: &str, runs: &[StoreRun]) {
    println!("{head}\n\n{}", store_table(runs));
}

/// The table of a run that was about nothing but queries.
#[expect(
    clippy::print_stdout,
    reason = "the tables are what the program is for"
)]
pub(crate) fn print_query(head: &str, runs: &[QueryRun]) {
    println!("{head}\n\n{}", query_table(runs));
}

/// A row for each question and who answered it: median (least – most) of the time, medians of the
/// rest, and the times by those of Prometheus asked directly, round by round.
fn query_table(runs: &[QueryRun]) -> String {
    let mut text =
        "### PromQL\n\n| question | asked | s | by Prometheus' own s | CPU s of querier \
                    | of sidecar | of Prometheus | peak RSS MiB of querier | of sidecar \
                    | answer MB | MB between sidecar and querier |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|"
            .to_owned();
    for cell in crate::query::cells(true) {
        let of: Vec<&QueryRun> = runs.iter().filter(|run| run.cell == cell).collect();
        let Some(one) = of.first() else { continue };
        let sorted = |value: &dyn Fn(&QueryRun) -> f64| {
            let mut values: Vec<f64> = of.iter().map(|run| value(run)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let middle = |value: &dyn Fn(&QueryRun) -> f64| {
            let values = sorted(value);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let times = sorted(&|run| run.total.as_secs_f64());
        let (least, most) = (times.first(), times.last());
        let ratio = middle(&|run| {
            let direct = runs.iter().find(|other| {
                other.round == run.round
                    && other.cell.question == cell.question
                    && other.cell.asked == crate::query::Asked::Prometheus
            });
            direct.map_or(f64::NAN, |d| {
                run.total.as_secs_f64() / d.total.as_secs_f64()
            })
        });
        let seconds = |of: fn(&QueryRun) -> u64| middle(&|run| of(run) as f64 / 1000.0);
        text.push_str(&format!(
            "\n| {} | {} | {:.2} ({:.2} – {:.2}) | {ratio:.3} | {:.2} | {:.2} | {:.2} | {:.0} | \
             {:.1} | {:.1} | {} |",
            cell.question.title(),
            cell.asked.title(),
            middle(&|run| run.total.as_secs_f64()),
            least.copied().unwrap_or_default(),
            most.copied().unwrap_or_default(),
            seconds(|run| run.querier_cpu_ms),
            seconds(|run| run.sidecar_cpu_ms),
            seconds(|run| run.prometheus_cpu_ms),
            middle(&|run| run.querier_rss_peak_bytes as f64 / MIB),
            middle(&|run| run.sidecar_rss_peak_bytes as f64 / MIB),
            middle(&|run| run.answer_bytes as f64 / 1e6),
            one.between_bytes.map_or_else(
                || "–".to_owned(),
                |bytes| format!("{:.4}", bytes as f64 / 1e6)
            ),
        ));
    }
    text
}

/// A row for each question and who answered it: medians over the rounds.
fn store_table(runs: &[StoreRun]) -> String {
    let mut text = "### Series over StoreAPI, in batches of 64\n\n| series | asked of | CPU s | \
                    Prometheus' CPU s | first message ms | total ms | peak RSS MiB | of it at the \
                    end without files | idle RSS MiB | messages MB \
                    |\n|---|---|---|---|---|---|---|---|---|---|"
        .to_owned();
    let mut asked: Vec<u64> = runs.iter().map(|run| run.series_asked).collect();
    asked.dedup();
    for series in asked {
        for cell in crate::store::cells(true) {
            let of: Vec<&StoreRun> = runs
                .iter()
                .filter(|run| run.cell == cell && run.series_asked == series)
                .collect();
            let Some(one) = of.first() else { continue };
            let middle = |value: fn(&StoreRun) -> f64| {
                let mut values: Vec<f64> = of.iter().map(|run| value(run)).collect();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).copied().unwrap_or_default()
            };
            let who = match cell.answerer {
                Answerer::Blocks => "outrigger, local blocks",
                Answerer::Outrigger => "outrigger, remote read",
                Answerer::Incumbent => "incumbent",
                Answerer::Upstream => "Prometheus alone",
            };
            let what = match (cell.skip_chunks, cell.extent) {
                (true, _) => ", labels only",
                (false, Extent::All) => "",
                (false, Extent::Cold) => ", cold",
                (false, Extent::One) => ", one series",
            };
            text.push_str(&format!(
                "\n| {series}, {} chunks | {who}{what} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | \
                 {:.1} | {:.1} | {:.0} |",
                one.chunks,
                middle(|run| run.cpu_ms as f64 / 1000.0),
                middle(|run| run.prometheus_cpu_ms as f64 / 1000.0),
                middle(|run| run.first.as_secs_f64() * 1000.0),
                middle(|run| run.total.as_secs_f64() * 1000.0),
                middle(|run| run.rss_peak_bytes as f64 / MIB),
                middle(|run| run.rss_anon_bytes as f64 / MIB),
                middle(|run| run.idle_rss_bytes as f64 / MIB),
                middle(|run| run.bytes as f64 / 1e6),
            ));
        }
    }
    text
}

fn load_line(load: &Load) -> String {
    let sum = |of: fn(&crate::block::Block) -> u64| load.blocks.iter().map(of).sum::<u64>();
    format!(
        "{} blocks with {:.3} GiB, {} series, {} chunks ({}). Median (least – most) over the \
         rounds.",
        load.blocks.len(),
        load.size_bytes() as f64 / GIB,
        sum(|block| block.series),
        sum(|block| block.chunks),
        load.verdict
    )
}

/// A row for each cell, then the ratios to the limit and to the incumbent.
fn s3_table(runs: &[S3Run], gib: f64) -> String {
    let mut text = "### Shipping to S3 that discards, on loopback\n\n".to_owned();
    push_head(&mut text);
    let cells = crate::s3::cells(true);
    let of = |cell: Cell| -> Vec<&Figures> {
        let runs = runs.iter().filter(|run| run.cell == cell);
        runs.map(|run| &run.figures).collect()
    };
    for cell in &cells {
        let figures = of(*cell);
        if !figures.is_empty() {
            text.push_str(&row(&s3_title(*cell), &figures, gib));
        }
    }
    text.push_str(
        "\n\n| CPU s/GiB of outrigger by that of | sendfile | incumbent |\n|---|---|---|",
    );
    let ours = |cell: &&Cell| matches!(cell.sender, Sender::Uring | Sender::Pread);
    for cell in cells
        .iter()
        .filter(ours)
        .filter(|cell| !of(**cell).is_empty())
    {
        let by = |other: Cell| ratio(&of(*cell), &of(other), &COLUMNS[0], gib);
        let limit = by(Cell {
            scheme: Scheme::Http,
            checks: Checks::Fewest,
            sender: Sender::Sendfile,
            ..*cell
        });
        let incumbent = by(Cell {
            sender: Sender::Incumbent,
            ..*cell
        });
        text.push_str(&format!(
            "\n| {} | {limit} | {incumbent} |",
            s3_title(*cell)
        ));
    }
    text
}

fn s3_title(cell: Cell) -> String {
    let scheme = match cell.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let checks = match cell.checks {
        Checks::Defaults => "defaults",
        Checks::Fewest => "md5 off, payload not signed",
    };
    let cache = cell.cache.name();
    match cell.sender {
        Sender::Uring => format!("{scheme}, {checks}, {cache}: outrigger, uring"),
        Sender::Pread => format!("{scheme}, {checks}, {cache}: outrigger, pread"),
        Sender::Incumbent => format!("{scheme}, {checks}, {cache}: incumbent"),
        Sender::Sendfile => format!("{scheme}, {cache}: plain sendfile"),
    }
}

fn ship_table(runs: &[Run], gib: f64) -> String {
    let mut text = "### Shipping to a FILESYSTEM bucket\n\n".to_owned();
    push_head(&mut text);
    for cache in [Cache::Warm, Cache::Cold] {
        let of = |carrier| -> Vec<&Figures> {
            let runs = runs.iter();
            runs.filter(|run| run.carrier == carrier && run.cache == cache)
                .map(|run| &run.figures)
                .collect()
        };
        let ours = of(Carrier::Outrigger);
        let others = [
            (Carrier::Copy, "plain copy"),
            (Carrier::Incumbent, "incumbent"),
        ];
        let named = [(Carrier::Outrigger, "outrigger")]
            .into_iter()
            .chain(others);
        for (carrier, name) in named.filter(|(carrier, _)| !of(*carrier).is_empty()) {
            text.push_str(&row(
                &format!("{name}, {}", cache.name()),
                &of(carrier),
                gib,
            ));
        }
        for (other, name) in others {
            if ours.is_empty() || of(other).is_empty() {
                continue;
            }
            text.push_str(&format!("\n| outrigger by {name}, {} |", cache.name()));
            for column in &COLUMNS {
                let ratio = ratio(&ours, &of(other), column, gib);
                text.push_str(&format!(" {ratio} |"));
            }
        }
    }
    text
}

fn push_head(text: &mut String) {
    text.push_str("| |");
    for column in &COLUMNS {
        text.push_str(&format!(" {} |", column.title));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(COLUMNS.len()));
}

fn row(title: &str, runs: &[&Figures], gib: f64) -> String {
    let mut text = format!("\n| {title} |");
    for column in &COLUMNS {
        let decimals = column.decimals;
        let cell = match spread(runs, column, gib) {
            Some([_, median, _]) if runs.len() == 1 => format!("{median:.decimals$}"),
            Some([least, median, most]) => {
                format!("{median:.decimals$} ({least:.decimals$} – {most:.decimals$})")
            }
            None => "–".to_owned(),
        };
        text.push_str(&format!(" {cell} |"));
    }
    text
}

/// One median by the other.
fn ratio(ours: &[&Figures], others: &[&Figures], column: &Column, gib: f64) -> String {
    match spread(ours, column, gib).zip(spread(others, column, gib)) {
        Some((ours, others)) if others[1] > 0.0 => format!("{:.2}", ours[1] / others[1]),
        _ => "–".to_owned(),
    }
}

fn spread(runs: &[&Figures], column: &Column, gib: f64) -> Option<[f64; 3]> {
    let values: Option<Vec<f64>> = runs.iter().map(|run| (column.of)(run, gib)).collect();
    values
        .filter(|values| !values.is_empty())
        .map(least_median_most)
}

fn latency_table(latency: &Latency) -> String {
    let [least, median, most] = least_median_most(milliseconds(&latency.waits));
    format!(
        "### Rename of a block to its meta.json in the bucket\n\n\
         {} blocks of {:.1} MiB, one after another, looked for every 1 ms.\n\n\
         | least ms | median ms | most ms |\n|---|---|---|\n\
         | {least:.1} | {median:.1} | {most:.1} |",
        latency.waits.len(),
        latency.block_bytes as f64 / MIB,
    )
}

fn follow_table(follow: &Follow) -> String {
    let row = |what: &str, waits: &[Duration]| {
        let [least, median, most] = least_median_most(milliseconds(waits));
        let times = waits.len();
        format!("| {what}, {times} times | {median:.1} ms ({least:.1} – {most:.1}) |\n")
    };
    format!(
        "### Following Prometheus\n\n| | |\n|---|---|\n{}{}",
        row("end of its replay to /-/ready", &follow.ready),
        row("swap of a ConfigMap to the reload", &follow.reloads)
    )
}

fn start_table(start: &Start) -> String {
    let [least, median, most] = least_median_most(milliseconds(&start.waits));
    let mut text = format!(
        "### Start and idling\n\n| | |\n|---|---|\n\
         | exec to first answer of /metrics ({} bytes), {} starts | \
         {median:.1} ms ({least:.1} – {most:.1}) |\n\
         | idle RSS (of it anonymous) | {:.1} MiB ({:.1}) |\n",
        start.metrics_bytes,
        start.waits.len(),
        start.idle_rss_bytes as f64 / MIB,
        start.idle_rss_anon_bytes as f64 / MIB,
    );
    for (window, cpu) in &start.idle {
        let (window, cpu_ms) = (window.as_secs(), cpu.as_secs_f64() * 1000.0);
        text.push_str(&format!("| idle CPU in {window} s | {cpu_ms:.2} ms |\n"));
    }
    let binary = start.binary_bytes as f64 / MIB;
    text.push_str(&format!("| binary | {binary:.1} MiB |"));
    text
}

fn milliseconds(waits: &[Duration]) -> Vec<f64> {
    waits
        .iter()
        .map(|wait| wait.as_secs_f64() * 1000.0)
        .collect()
}

/// Of an even number of values the median is the mean of the middle two.
fn least_median_most(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    let median = f64::midpoint(at(last / 2), at(values.len() / 2));
    [at(0), median, at(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(least_median_most(vec![3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(least_median_most(vec![4.0, 1.0, 2.0, 3.0]), [1.0, 2.5, 4.0]);
        assert_eq!(least_median_most(vec![7.0]), [7.0, 7.0, 7.0]);
    }
}
