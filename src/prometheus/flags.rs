//! Whether Prometheus' flags allow uploads (contract `prometheus.md` §3): it must not compact away
//! blocks before they are shipped.
//!
//! Pure. One deviation: the reference compares the paths of the delay-compact file as text; here
//! two spellings of the same file are the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::model::{InvalidPromDuration, PromDuration};

const MIN_BLOCK_DURATION: &str = "storage.tsdb.min-block-duration";
const MAX_BLOCK_DURATION: &str = "storage.tsdb.max-block-duration";
const DELAY_COMPACT_PATH: &str = "storage.tsdb.delay-compact-file.path";
const TSDB_PATH: &str = "storage.tsdb.path";
/// The block length that everything downstream is made for.
pub(super) const MIN_BLOCK_DURATION_USUAL: Duration = Duration::from_secs(2 * 3600);

/// What the flags must agree with.
#[derive(Clone, Debug)]
pub struct FlagExpectations {
    /// `--tsdb.path`.
    pub data_dir: PathBuf,
    /// `--shipper.meta-file-name`.
    pub meta_file_name: PathBuf,
    /// `--shipper.ignore-unequal-block-size`.
    pub ignore_unequal_block_size: bool,
    /// The directory that relative paths of ours start from.
    pub current_dir: PathBuf,
}

/// The flags forbid uploads.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// A duration can't be read.
    #[error("Prometheus' flag {flag} has the value `{value}`")]
    Duration {
        /// The flag's name.
        flag: &'static str,
        /// Its value.
        value: String,
        /// Why it is no duration.
        source: InvalidPromDuration,
    },
    /// Prometheus waits for another file than the one we write.
    #[error(
        "found that Prometheus and Thanos use different paths for tracking block uploads. \
         Prometheus watches `{theirs}` ({DELAY_COMPACT_PATH}), uploads are recorded in `{}`",
        ours.display()
    )]
    DelayCompactPath {
        /// Prometheus' path.
        theirs: String,
        /// Ours.
        ours: PathBuf,
    },
    /// Prometheus compacts.
    #[error(
        "found that TSDB Max time is {max} and Min time is {min}. Compaction needs to be disabled \
         ({MIN_BLOCK_DURATION} = {MAX_BLOCK_DURATION})"
    )]
    Compaction {
        /// The shortest block.
        min: PromDuration,
        /// The longest block.
        max: PromDuration,
    },
}

/// The flags allow uploads, but are unusual.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagWarning {
    /// Prometheus compacts and we were told not to mind.
    #[error(
        "found that TSDB Max time is {max} and Min time is {min}. Prometheus compacts; blocks that \
         it compacts before they are shipped are only shipped with --shipper.upload-compacted"
    )]
    Compaction {
        /// The shortest block.
        min: PromDuration,
        /// The longest block.
        max: PromDuration,
    },
    /// Blocks are not of two hours.
    #[error(
        "found that TSDB Min time is {min}; {MIN_BLOCK_DURATION} should be 2h, which compactors \
         and store gateways expect"
    )]
    BlockDuration {
        /// The shortest block.
        min: PromDuration,
    },
}

/// Checks the flags. `resolve` gives the file that a path leads to (symlinks followed) or the path
/// itself.
///
/// # Errors
/// Where they forbid uploads.
pub fn validate_flags(
    flags: &BTreeMap<String, String>,
    expected: &FlagExpectations,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Result<Vec<FlagWarning>, FlagError> {
    let min = duration(flags, MIN_BLOCK_DURATION)?;
    let max = duration(flags, MAX_BLOCK_DURATION)?;
    let delay_compact = text(flags, DELAY_COMPACT_PATH);
    let mut warnings = Vec::new();
    if !delay_compact.is_empty() {
        let storage = text(flags, TSDB_PATH);
        if !is_our_ledger(delay_compact, storage, expected, resolve) {
            return Err(FlagError::DelayCompactPath {
                theirs: delay_compact.to_owned(),
                ours: clean(&expected.data_dir.join(&expected.meta_file_name)),
            });
        }
    } else if min != max {
        if !expected.ignore_unequal_block_size {
            return Err(FlagError::Compaction { min, max });
        }
        warnings.push(FlagWarning::Compaction { min, max });
    }
    if min.to_std() != MIN_BLOCK_DURATION_USUAL {
        warnings.push(FlagWarning::BlockDuration { min });
    }
    Ok(warnings)
}

/// The shortest block, which is what the head is cut into; two hours where that is not told.
///
/// # Errors
/// Where the flag is no duration.
pub(super) fn block_range(flags: &BTreeMap<String, String>) -> Result<Duration, FlagError> {
    let told = duration(flags, MIN_BLOCK_DURATION)?.to_std();
    Ok(match told.is_zero() {
        true => MIN_BLOCK_DURATION_USUAL,
        false => told,
    })
}

fn text<'a>(flags: &'a BTreeMap<String, String>, flag: &str) -> &'a str {
    flags.get(flag).map(String::as_str).unwrap_or_default()
}

/// An absent flag is zero, as in the reference.
fn duration(
    flags: &BTreeMap<String, String>,
    flag: &'static str,
) -> Result<PromDuration, FlagError> {
    let Some(value) = flags.get(flag) else {
        return Ok(PromDuration::default());
    };
    value.parse().map_err(|source| FlagError::Duration {
        flag,
        value: value.clone(),
        source,
    })
}

/// Whether `theirs` is the ledger. A relative path starts from Prometheus' working directory,
/// which it does not tell among its flags, so one is taken for ours where it is from our own
/// directory, or where it is the ledger of Prometheus' own data directory and the end of our path.
fn is_our_ledger(
    theirs: &str,
    storage: &str,
    expected: &FlagExpectations,
    resolve: impl Fn(&Path) -> PathBuf,
) -> bool {
    let ours = clean(&expected.data_dir.join(&expected.meta_file_name));
    let theirs = clean(Path::new(theirs));
    if theirs == ours {
        return true;
    }
    let ours = resolve(&clean(&expected.current_dir.join(&ours)));
    if resolve(&clean(&expected.current_dir.join(&theirs))) == ours {
        return true;
    }
    let of_storage = clean(&Path::new(storage).join(&expected.meta_file_name));
    let is_below = matches!(theirs.components().next(), Some(Component::Normal(_)));
    is_below && of_storage == theirs && ours.ends_with(&theirs)
}

/// Go's `filepath.Clean`: no `.`, no empty element, and `..` only at the start of a relative path.
fn clean(path: &Path) -> PathBuf {
    let mut kept: Vec<OsString> = Vec::new();
    let is_absolute = path.is_absolute();
    for component in path.components() {
        match component {
            Component::ParentDir => match kept.last() {
                Some(last) if last != ".." => {
                    kept.pop();
                }
                _ if is_absolute => {}
                _ => kept.push("..".into()),
            },
            Component::Normal(name) => kept.push(name.to_owned()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    let relative: PathBuf = kept.iter().collect();
    match (is_absolute, kept.is_empty()) {
        (true, _) => Path::new("/").join(relative),
        (false, true) => PathBuf::from("."),
        (false, false) => relative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    fn expected(data_dir: &str) -> FlagExpectations {
        FlagExpectations {
            data_dir: data_dir.into(),
            meta_file_name: "thanos.shipper.json".into(),
            ignore_unequal_block_size: false,
            current_dir: "/srv".into(),
        }
    }

    fn validate(
        pairs: &[(&str, &str)],
        expected: &FlagExpectations,
    ) -> Result<Vec<FlagWarning>, FlagError> {
        validate_flags(&flags(pairs), expected, Path::to_path_buf)
    }

    #[test]
    fn equal_block_durations_are_accepted_and_unequal_ones_are_not() {
        let usual = [(MIN_BLOCK_DURATION, "2h"), (MAX_BLOCK_DURATION, "2h")];
        assert_eq!(validate(&usual, &expected("/d")).unwrap(), []);
        let unequal = [(MIN_BLOCK_DURATION, "2h"), (MAX_BLOCK_DURATION, "1d12h")];
        let error = validate(&unequal, &expected("/d")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found that TSDB Max time is 1d12h and Min time is 2h. Compaction needs to be disabled \
             (storage.tsdb.min-block-duration = storage.tsdb.max-block-duration)"
        );
        let ignoring = FlagExpectations {
            ignore_unequal_block_size: true,
            ..expected("/d")
        };
        let warnings = validate(&unequal, &ignoring).unwrap();
        assert!(matches!(warnings[..], [FlagWarning::Compaction { .. }]));
    }

    #[test]
    fn odd_block_durations_are_warned_of_and_absent_ones_are_zero() {
        let short = [(MIN_BLOCK_DURATION, "1h"), (MAX_BLOCK_DURATION, "1h")];
        let warnings = validate(&short, &expected("/d")).unwrap();
        assert!(warnings[0].to_string().contains("1h"), "{warnings:?}");
        let warnings = validate(&[], &expected("/d")).unwrap();
        let [FlagWarning::BlockDuration { min }] = warnings[..] else {
            panic!("{warnings:?}");
        };
        assert_eq!(min, PromDuration::default());
        for bad in ["", "1.5h", "x"] {
            let error = validate(&[(MAX_BLOCK_DURATION, bad)], &expected("/d")).unwrap_err();
            assert!(error.to_string().contains(MAX_BLOCK_DURATION), "{error}");
        }
    }

    #[test]
    fn spellings_of_the_ledger_are_the_same_file() {
        for (data_dir, theirs, storage) in [
            ("/data", "/data/thanos.shipper.json", ""),
            ("/data/", "/data//x/../thanos.shipper.json", ""),
            ("./data", "data/thanos.shipper.json", ""),
            ("./data", "/srv/data/thanos.shipper.json", ""),
            ("/srv/data", "data/thanos.shipper.json", ""),
            ("/srv/data", "../srv/data/thanos.shipper.json", ""),
            ("/prometheus/data", "data/thanos.shipper.json", "data/"),
        ] {
            let pairs = [
                (DELAY_COMPACT_PATH, theirs),
                (TSDB_PATH, storage),
                (MIN_BLOCK_DURATION, "2h"),
                (MAX_BLOCK_DURATION, "31d"),
            ];
            let outcome = validate(&pairs, &expected(data_dir));
            assert_eq!(outcome.unwrap(), [], "{data_dir} {theirs}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for (data_dir, theirs, storage) in [
            ("/data", "/data/other.json", ""),
            ("/data", "/other/thanos.shipper.json", ""),
            ("./data", "other/thanos.shipper.json", "other"),
            (
                "/prometheus/data",
                "data/thanos.shipper.json",
                "/prometheus/data",
            ),
            ("/prometheus/data", "../data/thanos.shipper.json", "../data"),
        ] {
            let pairs = [(DELAY_COMPACT_PATH, theirs), (TSDB_PATH, storage)];
            let error = validate(&pairs, &expected(data_dir)).unwrap_err();
            assert!(
                error.to_string().starts_with(
                    "found that Prometheus and Thanos use different paths for tracking block \
                     uploads. "
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn symlinks_are_followed() {
        let pairs = [
            (DELAY_COMPACT_PATH, "/link/thanos.shipper.json"),
            (MIN_BLOCK_DURATION, "2h"),
        ];
        let resolve = |path: &Path| match path.strip_prefix("/link") {
            Ok(rest) => Path::new("/data").join(rest),
            Err(_) => path.to_owned(),
        };
        let outcome = validate_flags(&flags(&pairs), &expected("/data"), resolve);
        assert_eq!(outcome.unwrap(), []);
    }

    #[test]
    fn paths_are_cleaned_like_go_does() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("./a//b/", "a/b"),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
        }
    }
}
