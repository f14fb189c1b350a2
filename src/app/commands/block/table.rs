//! Tables on stdout: columns as wide as their widest cell, numbers to the right.

use std::io::{self, Write};

use crate::model::PromDuration;

/// Rows under a head.
pub(super) struct Table {
    /// The columns' names, and whether their cells are numbers.
    head: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[(&'static str, bool)]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn print(&self, out: &mut impl Write, indent: &str) -> io::Result<()> {
        let names = self.head.iter().map(|(name, _)| (*name).to_owned());
        let head: Vec<String> = names.collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = self
                    .rows
                    .iter()
                    .chain([&head])
                    .filter_map(|r| r.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in [&head].into_iter().chain(&self.rows) {
            let mut line = indent.to_owned();
            for ((cell, width), (_, is_number)) in row.iter().zip(&widths).zip(&self.head) {
                let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
                let parts = match is_number {
                    true => [&blanks, cell],
                    false => [cell, &blanks],
                };
                parts.iter().for_each(|part| line.push_str(part));
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// An instant for people.
pub(super) fn time(time_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(time_ms);
    at.map_or_else(|_| time_ms.to_string(), |at| at.to_string())
}

/// A length of time for people.
pub(super) fn duration(from_ms: i64, until_ms: i64) -> String {
    match u64::try_from(until_ms.saturating_sub(from_ms)) {
        Ok(ms) => PromDuration::from_millis(ms).to_string(),
        Err(_) => "-".to_owned(),
    }
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&[("NAME", false), ("N", true), ("WHAT", false)]);
        table.push(["é", "1000", "x y"].map(str::to_owned).to_vec());
        table.push(["longer", "1", ""].map(str::to_owned).to_vec());
        let mut out = Vec::new();
        table.print(&mut out, "> ").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "> NAME       N  WHAT\n> é       1000  x y\n> longer     1\n"
        );
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        assert_eq!(duration(0, 7_200_000), "2h");
        assert_eq!(duration(1, 0), "-");
    }
}
