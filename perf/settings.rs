//! What the environment may change: sizes, so that a small run can prove that the harness works.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;

/// Sizes and places of one run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Chunk bytes of the blocks that are shipped (`PERF_GIB`, 3).
    pub(crate) chunk_bytes: u64,
    /// How often each variant runs, interleaved (`PERF_ROUNDS`, 3).
    pub(crate) rounds: u32,
    /// Series of the blocks that StoreAPI is asked for (`PERF_STORE_SERIES`, 115000).
    pub(crate) store_series: Vec<u64>,
    /// Series of the counter that queries are about (`PERF_QUERY_SERIES`, 100000).
    pub(crate) query_series: u64,
    /// How long it is watched idling (`PERF_IDLE_S`, 40: one heartbeat and one pass are in it).
    pub(crate) idle: Duration,
    /// Where the scratch directory is made (`PERF_DIR`, `target/perf`).
    pub(crate) directory: PathBuf,
    /// Words that the name of a measurement must have to be made (`PERF_ONLY`, none).
    pub(crate) only: Vec<String>,
    /// The program that outrigger replaces, to be measured beside it (`INCUMBENT`).
    pub(crate) incumbent: Option<PathBuf>,
}

const GIB: f64 = (1_u64 << 30) as f64;
/// Below 4 MiB nothing is left of the shape of a block, above 64 GiB the harness's own index is.
const GIB_RANGE: std::ops::RangeInclusive<f64> = 0.004..=64.0;

impl Settings {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let gib: f64 = number("PERF_GIB", 3.0)?;
        anyhow::ensure!(
            GIB_RANGE.contains(&gib),
            "PERF_GIB is outside {GIB_RANGE:?}"
        );
        let rounds = number("PERF_ROUNDS", 3)?;
        anyhow::ensure!(rounds > 0, "PERF_ROUNDS is 0: nothing to measure");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let chunk_bytes = (gib * GIB) as u64;
        Ok(Self {
            chunk_bytes,
            rounds,
            store_series: series(
                &std::env::var("PERF_STORE_SERIES").unwrap_or_else(|_| "115000".to_owned()),
            )?,
            query_series: number("PERF_QUERY_SERIES", 100_000)?,
            idle: Duration::from_secs(number("PERF_IDLE_S", 40)?),
            directory: std::env::var_os("PERF_DIR")
                .map_or_else(|| PathBuf::from("target/perf"), PathBuf::from),
            only: words(&std::env::var("PERF_ONLY").unwrap_or_default()),
            incumbent: std::env::var_os("INCUMBENT")
                .filter(|path| !path.is_empty())
                .map(std::path::absolute)
                .transpose()?,
        })
    }

    /// Whether the measurement of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let name = words(name);
        self.only.iter().all(|word| name.contains(word))
    }
}

fn series(text: &str) -> anyhow::Result<Vec<u64>> {
    let counts: Result<Vec<u64>, _> = words(text).iter().map(|word| word.parse()).collect();
    counts.with_context(|| format!("PERF_STORE_SERIES={text} are no numbers"))
}

fn words(text: &str) -> Vec<String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    variable: &str,
    default: T,
) -> anyhow::Result<T> {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{variable}={text} is not a number")),
        Err(std::env::VarError::NotPresent) => Ok(default),
        Err(error) => Err(error).context(variable.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_wanted_where_its_name_has_every_word() {
        let settings = |only| Settings {
            chunk_bytes: 1,
            rounds: 1,
            store_series: Vec::new(),
            query_series: 1,
            idle: Duration::ZERO,
            directory: PathBuf::new(),
            only: words(only),
            incumbent: None,
        };
        let name = "s3 http defaults warm uring";
        for (only, wanted) in [
            ("", true),
            ("s3", true),
            ("warm,http", true),
            ("http cold", false),
            ("htt", false),
        ] {
            assert_eq!(settings(only).wants(name), wanted, "{only}");
        }
    }
}
