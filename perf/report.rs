//! The tables, as Markdown, so that they can stand in `RESULTS.md` as printed.

use std::time::Duration;

use crate::latency::Latency;
use crate::ship::{Cache, Carrier, Run, Shipping};
use crate::start::Start;

const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// One column of the shipping table.
struct Figure {
    title: &'static str,
    decimals: usize,
    of: fn(&Run, f64) -> Option<f64>,
}

/// `f64` is the size of the block, GiB.
const FIGURES: [Figure; 7] = [
    Figure {
        title: "CPU s/GiB",
        decimals: 2,
        of: |run, gib| Some((run.user_ms + run.system_ms) as f64 / 1000.0 / gib),
    },
    Figure {
        title: "of it user",
        decimals: 2,
        of: |run, gib| Some(run.user_ms as f64 / 1000.0 / gib),
    },
    Figure {
        title: "GiB/s",
        decimals: 2,
        of: |run, gib| Some(gib / run.wall.as_secs_f64()),
    },
    Figure {
        title: "peak RSS MiB",
        decimals: 1,
        of: |run, _| Some(run.rss_peak_bytes as f64 / MIB),
    },
    Figure {
        title: "anon RSS at the end MiB",
        decimals: 1,
        of: |run, _| Some(run.rss_anon_bytes as f64 / MIB),
    },
    Figure {
        title: "bytes read / size",
        decimals: 2,
        of: |run, gib| Some(run.read_bytes as f64 / GIB / gib),
    },
    Figure {
        title: "source left in cache MiB",
        decimals: 0,
        of: |run, _| Some(run.cached_bytes? as f64 / MIB),
    },
];

#[expect(
    clippy::print_stdout,
    reason = "the tables are what the program is for"
)]
pub(crate) fn print(head: &str, shipping: &Shipping, latency: &Latency, start: &Start) {
    println!("{head}\n\n{}", ship_table(shipping));
    println!("\n{}", latency_table(latency));
    println!("\n{}", start_table(start));
}

fn ship_table(shipping: &Shipping) -> String {
    let block = &shipping.block;
    let gib = block.size_bytes as f64 / GIB;
    let mut text = format!(
        "### Shipping one block to a FILESYSTEM bucket\n\n\
         {gib:.3} GiB in {} segments, {} series, {} chunks. Median (least – most).\n\n| |",
        block.segments, block.series, block.chunks
    );
    for figure in &FIGURES {
        text.push_str(&format!(" {} |", figure.title));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(FIGURES.len()));
    for cache in [Cache::Warm, Cache::Cold] {
        let of = |carrier| -> Vec<&Run> {
            let runs = shipping.runs.iter();
            runs.filter(|run| run.carrier == carrier && run.cache == cache)
                .collect()
        };
        let (ours, floor) = (of(Carrier::Outrigger), of(Carrier::Copy));
        text.push_str(&row(&format!("outrigger, {cache:?}"), &ours, gib));
        text.push_str(&row(&format!("plain copy, {cache:?}"), &floor, gib));
        text.push_str(&format!("\n| ratio, {cache:?} |"));
        for figure in &FIGURES {
            let ratio = spread(&ours, figure, gib).zip(spread(&floor, figure, gib));
            let cell = match ratio {
                Some((ours, floor)) if floor[1] > 0.0 => format!("{:.2}", ours[1] / floor[1]),
                _ => "–".to_owned(),
            };
            text.push_str(&format!(" {cell} |"));
        }
    }
    if spread(&shipping.runs.iter().collect::<Vec<_>>(), &FIGURES[6], gib).is_none() {
        text.push_str("\n\nNo `fincore` here: what is left in the page cache was not looked at.");
    }
    text
}

fn row(title: &str, runs: &[&Run], gib: f64) -> String {
    let mut text = format!("\n| {title} |");
    for figure in &FIGURES {
        let decimals = figure.decimals;
        let cell = match spread(runs, figure, gib) {
            Some([least, median, most]) => {
                format!("{median:.decimals$} ({least:.decimals$} – {most:.decimals$})")
            }
            None => "–".to_owned(),
        };
        text.push_str(&format!(" {cell} |"));
    }
    text
}

fn spread(runs: &[&Run], figure: &Figure, gib: f64) -> Option<[f64; 3]> {
    let values: Option<Vec<f64>> = runs.iter().map(|run| (figure.of)(run, gib)).collect();
    Some(least_median_most(values?))
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
