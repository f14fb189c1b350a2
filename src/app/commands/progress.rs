//! The bar on a terminal: how far, how fast, how long still.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often it is drawn.
const INTERVAL: Duration = Duration::from_millis(200);

/// Columns of the bar itself.
const WIDTH: usize = 24;

/// What is counted, and up to where.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// So many bytes.
    Bytes(u64),
    /// So much time.
    Time(Duration),
}

/// Draws until `work` ends, where stderr is a terminal; else only does the work.
pub(super) async fn watch<T>(
    label: &str,
    goal: Goal,
    done_bytes: &AtomicU64,
    work: impl Future<Output = T>,
) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let started = Instant::now();
    let mut ticks = tokio::time::interval(INTERVAL);
    tokio::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => {
                draw("\r\x1b[K");
                return outcome;
            }
            _ = ticks.tick() => {
                let done = done_bytes.load(Ordering::Relaxed);
                draw(&format!("\r{}\x1b[K", line(label, goal, done, started.elapsed())));
            }
        }
    }
}

fn draw(text: &str) {
    // A terminal that is gone takes nothing away from the measurement.
    drop(io::stderr().write_all(text.as_bytes()));
}

fn line(label: &str, goal: Goal, done_bytes: u64, elapsed: Duration) -> String {
    let gib = done_bytes as f64 / (1_u64 << 30) as f64;
    let seconds = elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { gib / seconds } else { 0.0 };
    // A client that sends something twice counts it twice.
    let fraction = match goal {
        Goal::Bytes(total) => done_bytes as f64 / total.max(1) as f64,
        Goal::Time(whole) => seconds / whole.as_secs_f64().max(f64::MIN_POSITIVE),
    };
    let fraction = fraction.clamp(0.0, 1.0);
    let filled = (0..WIDTH).filter(|at| (*at as f64) < fraction * WIDTH as f64);
    let filled = "#".repeat(filled.count());
    let mut line = format!("{label} [{filled:<WIDTH$}] {:3.0} %  ", fraction * 100.0);
    line.push_str(&format!("{gib:.2} GiB  {rate:.2} GiB/s"));
    if fraction > 0.0 {
        let left = (seconds / fraction - seconds).round();
        line.push_str(&format!("  {left:.0} s left"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let goal = Goal::Bytes(4 << 30);
        let text = line("uploading", goal, 1 << 30, Duration::from_secs(2));
        assert_eq!(
            text,
            "uploading [######                  ]  25 %  1.00 GiB  0.50 GiB/s  6 s left"
        );
        let text = line("uploading", goal, 9 << 30, Duration::from_secs(2));
        assert!(text.contains("[########################] 100 %") && text.ends_with(" 0 s left"));
        let text = line("x", goal, 0, Duration::ZERO);
        assert!(text.ends_with("  0 %  0.00 GiB  0.00 GiB/s"), "{text}");
        let goal = Goal::Time(Duration::from_secs(10));
        let text = line("x", goal, 1 << 30, Duration::from_secs(5));
        assert!(
            text.contains(" 50 %  ") && text.ends_with("5 s left"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_work_is_done_with_or_without_a_terminal() {
        let done = AtomicU64::new(0);
        assert_eq!(watch("x", Goal::Bytes(1), &done, async { 7 }).await, 7);
    }
}
