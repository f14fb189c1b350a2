//! The object store configuration document (contract `objstore.md` §1).
//!
//! Strict where the reference is strict, since the store gateway and the compactor read the same
//! file: an unknown top-level key is an error. Where the reference ignores unknown keys (the
//! FILESYSTEM provider), each is one warning.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::s3::S3Keys;
use super::{InvalidKey, S3ConfigError, S3Settings};

/// Types of the reference that are not built here yet.
const NOT_BUILT_YET: [&str; 8] = [
    "GCS",
    "AZURE",
    "SWIFT",
    "COS",
    "ALIYUNOSS",
    "BOS",
    "OCI",
    "OBS",
];

/// A parsed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Which provider, and its settings.
    pub provider: Provider,
    /// What every object name begins with; may be empty or have slashes around it.
    pub prefix: String,
    /// What is odd about the document and yet no error, for the log.
    pub warnings: Vec<String>,
}

/// A provider and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `type: FILESYSTEM`.
    Filesystem {
        /// The directory, absolute and without `.`, `..` and empty names. It is part of the
        /// bucket's name, so it is cleaned as the reference does: by its text alone.
        directory: PathBuf,
    },
    /// `type: S3`.
    S3(Box<S3Settings>),
}

/// The document can't be used. Start-up ends with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, an unknown key, or a value of the wrong type; the text has line and column.
    #[error("parsing config YAML file: {}", .0)]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A type that no version of the reference knows.
    #[error("bucket with type {0} is not supported")]
    UnknownType(String),
    /// A type that the reference knows and this version does not have.
    #[error(
        "create {0} client: this version of outrigger ships to S3 and FILESYSTEM buckets only; \
         keep the previous sidecar on this host until the release that has {0}"
    )]
    NotBuiltYet(String),
    /// FILESYSTEM without a directory.
    #[error("create FILESYSTEM client: missing directory for filesystem bucket")]
    MissingDirectory,
    /// S3 with something that can't be.
    #[error("create S3 client")]
    S3(#[from] S3ConfigError),
    /// The prefix can't begin an object's name.
    #[error("the prefix")]
    Prefix(#[from] InvalidKey),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<C> {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default = "Option::default")]
    config: Option<C>,
    #[serde(default)]
    prefix: Option<String>,
}

#[derive(Default, Deserialize)]
struct FilesystemKeys {
    #[serde(default)]
    directory: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl BucketConfig {
    /// Parses the document. A relative directory is taken from `working_directory`.
    ///
    /// # Errors
    /// Where it is not YAML, has an unknown key, or its type is unknown or not built yet.
    pub fn parse(yaml: &str, working_directory: &Path) -> Result<Self, ConfigError> {
        let outline: Document<IgnoredAny> = parse_yaml(yaml)?;
        let kind = outline.kind.to_ascii_uppercase();
        match kind.as_str() {
            "FILESYSTEM" => {
                let document: Document<FilesystemKeys> = parse_yaml(yaml)?;
                let keys = document.config.unwrap_or_default();
                let warnings = keys.unknown.keys().map(|key| {
                    format!("unknown key `{key}` in the FILESYSTEM bucket configuration is ignored")
                });
                let directory = keys.directory.filter(|directory| !directory.is_empty());
                let directory = directory.ok_or(ConfigError::MissingDirectory)?;
                Ok(Self {
                    provider: Provider::Filesystem {
                        directory: cleaned(&working_directory.join(directory)),
                    },
                    prefix: document.prefix.unwrap_or_default(),
                    warnings: warnings.collect(),
                })
            }
            "S3" => {
                let document: Document<S3Keys> =
                    read_yaml(yaml).map_err(|error| S3ConfigError::Yaml(Box::new(error)))?;
                let keys = document.config.unwrap_or_default();
                let (settings, warnings) = keys.settings(working_directory)?;
                Ok(Self {
                    provider: Provider::S3(Box::new(settings)),
                    prefix: document.prefix.unwrap_or_default(),
                    warnings,
                })
            }
            known if NOT_BUILT_YET.contains(&known) => Err(ConfigError::NotBuiltYet(kind)),
            _ => Err(ConfigError::UnknownType(outline.kind)),
        }
    }
}

/// An absolute path without `.`, `..` and empty names, not asking the file system: `a/..` is none
/// even where `a` is a symlink.
fn cleaned(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Of the root this takes nothing.
            Component::ParentDir => {
                cleaned.pop();
            }
            named => cleaned.push(named),
        }
    }
    cleaned
}

fn parse_yaml<T: DeserializeOwned>(yaml: &str) -> Result<T, ConfigError> {
    read_yaml(yaml).map_err(|error| ConfigError::Yaml(Box::new(error)))
}

/// Without snippets of the document in errors, as it holds secrets.
fn read_yaml<T: DeserializeOwned>(yaml: &str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(yaml, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<BucketConfig, ConfigError> {
        BucketConfig::parse(yaml, Path::new("/srv/outrigger"))
    }

    #[test]
    fn filesystem_is_parsed_case_insensitively_and_made_absolute() {
        let config = parse("type: filesystem\nconfig:\n  directory: b/c\nprefix: /p/\n").unwrap();
        let directory = PathBuf::from("/srv/outrigger/b/c");
        assert_eq!(config.provider, Provider::Filesystem { directory });
        assert_eq!((config.prefix.as_str(), config.warnings.len()), ("/p/", 0));
        let config = parse("type: FILESYSTEM\nconfig: {directory: /x, depth: 3}\n").unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert!(
            config.warnings[0].contains("`depth`"),
            "{:?}",
            config.warnings
        );
    }

    #[test]
    fn the_directory_is_cleaned_by_its_text() {
        for (given, meant) in [
            ("/a/./b/../c/", "/a/c"),
            ("//a///b//", "/a/b"),
            ("/../..", "/"),
            ("/a/../../b", "/b"),
            ("/a/..", "/"),
            ("/...", "/..."),
            (".", "/srv/outrigger"),
            ("../b/", "/srv/b"),
            ("./b/./", "/srv/outrigger/b"),
            ("../../../x", "/x"),
        ] {
            let yaml = format!("type: FILESYSTEM\nconfig: {{directory: \"{given}\"}}\n");
            let Provider::Filesystem { directory } = parse(&yaml).unwrap().provider else {
                panic!("{given}");
            };
            // As text: paths compare equal whatever their trailing slashes are.
            assert_eq!(directory.to_str(), Some(meant), "{given}");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        let error = parse("type: FILESYSTEM\nconfig:\n  directory: /x\nprefx: y\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("parsing config YAML file: "), "{text}");
        assert!(text.contains("prefx") && text.contains("line 4"), "{text}");
        let text = parse("type: [1]\n").unwrap_err().to_string();
        assert!(text.contains("line 1"), "{text}");
        let text = parse("type: FILESYSTEM\nconfig:\n  directory: [1, 2]\n")
            .unwrap_err()
            .to_string();
        assert!(text.contains("line 3"), "{text}");
        let text = parse("type: : x\n\t- b").unwrap_err().to_string();
        assert!(text.contains("line"), "{text}");
    }

    #[test]
    fn types_are_told_apart() {
        assert!(matches!(parse("type: TAPE\n"), Err(ConfigError::UnknownType(t)) if t == "TAPE"));
        let text = parse("config: {}\n").unwrap_err().to_string();
        assert_eq!(text, "bucket with type  is not supported");
        for kind in NOT_BUILT_YET {
            let text = parse(&format!("type: {kind}\nconfig: {{}}\n"))
                .unwrap_err()
                .to_string();
            assert!(
                text.starts_with(&format!("create {kind} client: ")),
                "{text}"
            );
        }
        for empty in [
            "type: FILESYSTEM\n",
            "type: FILESYSTEM\nconfig: {directory: \"\"}\n",
        ] {
            assert!(
                matches!(parse(empty), Err(ConfigError::MissingDirectory)),
                "{empty}"
            );
        }
    }
}
