//! The object store configuration document (contract `objstore.md` §1).
//!
//! Strict where the reference is strict, since the store gateway and the compactor read the same
//! file: an unknown top-level key is an error. Where the reference ignores unknown keys (the
//! FILESYSTEM provider), each is one warning.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::azure::AzureKeys;
use super::gcs::GcsKeys;
use super::s3::S3Keys;
use super::swift::SwiftKeys;
use super::vendors::{BosKeys, CosKeys, ObsKeys, OciKeys, OssKeys};
use super::{
    AzureConfigError, AzureSettings, GcsConfigError, GcsSettings, InvalidKey, S3Config,
    S3ConfigError, S3Settings, SwiftConfigError, SwiftSettings, VendorConfigError,
};

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
    /// `type: S3`, and the stores that speak it.
    S3(Box<S3Settings>),
    /// `type: GCS`.
    Gcs(Box<GcsSettings>),
    /// `type: AZURE`.
    Azure(Box<AzureSettings>),
    /// `type: SWIFT`.
    Swift(Box<SwiftSettings>),
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
    /// FILESYSTEM without a directory.
    #[error("create FILESYSTEM client: missing directory for filesystem bucket")]
    MissingDirectory,
    /// S3 with something that can't be.
    #[error("create S3 client")]
    S3(#[from] S3ConfigError),
    /// GCS with something that can't be.
    #[error("create GCS client")]
    Gcs(#[from] GcsConfigError),
    /// AZURE with something that can't be.
    #[error("create AZURE client")]
    Azure(#[from] AzureConfigError),
    /// SWIFT with something that can't be.
    #[error("create SWIFT client")]
    Swift(#[from] SwiftConfigError),
    /// A store that speaks S3, with something that can't be.
    #[error("create {kind} client")]
    Vendor {
        /// The type.
        kind: &'static str,
        /// Why.
        source: Box<VendorConfigError>,
    },
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
    fn new(provider: Provider, prefix: Option<String>, warnings: Vec<String>) -> Self {
        Self {
            provider,
            prefix: prefix.unwrap_or_default(),
            warnings,
        }
    }

    /// Parses the document. A relative directory is taken from `working_directory`.
    ///
    /// # Errors
    /// Where it is not YAML, has an unknown key, or its type is unknown.
    pub fn parse(yaml: &str, working_directory: &Path) -> Result<Self, ConfigError> {
        let outline: Document<IgnoredAny> = parse_yaml(yaml)?;
        let kind = outline.kind.to_ascii_uppercase();
        match kind.as_str() {
            "FILESYSTEM" => Self::filesystem(yaml, working_directory),
            "S3" => {
                let document: Document<S3Keys> =
                    read_yaml(yaml).map_err(|error| S3ConfigError::Yaml(Box::new(error)))?;
                let prefix = document.prefix;
                let keys = document.config.unwrap_or_default();
                let (settings, warnings) = keys.settings(working_directory)?;
                Ok(Self::new(
                    Provider::S3(Box::new(settings)),
                    prefix,
                    warnings,
                ))
            }
            "GCS" => {
                let document: Document<GcsKeys> =
                    read_yaml(yaml).map_err(|error| GcsConfigError::Yaml(Box::new(error)))?;
                let prefix = document.prefix;
                let keys = document.config.unwrap_or_default();
                let (settings, warnings) = keys.settings(working_directory)?;
                Ok(Self::new(
                    Provider::Gcs(Box::new(settings)),
                    prefix,
                    warnings,
                ))
            }
            "AZURE" => {
                let document: Document<AzureKeys> =
                    read_yaml(yaml).map_err(|error| AzureConfigError::Yaml(Box::new(error)))?;
                let prefix = document.prefix;
                let (settings, warnings) = document.config.unwrap_or_default().settings()?;
                Ok(Self::new(
                    Provider::Azure(Box::new(settings)),
                    prefix,
                    warnings,
                ))
            }
            "SWIFT" => {
                let document: Document<SwiftKeys> =
                    read_yaml(yaml).map_err(|error| SwiftConfigError::Yaml(Box::new(error)))?;
                let prefix = document.prefix;
                let (settings, warnings) = document.config.unwrap_or_default().settings()?;
                Ok(Self::new(
                    Provider::Swift(Box::new(settings)),
                    prefix,
                    warnings,
                ))
            }
            "ALIYUNOSS" => vendor("ALIYUNOSS", yaml, OssKeys::settings),
            "BOS" => vendor("BOS", yaml, BosKeys::settings),
            "COS" => vendor("COS", yaml, CosKeys::settings),
            "OBS" => vendor("OBS", yaml, ObsKeys::settings),
            "OCI" => vendor("OCI", yaml, |keys: OciKeys| Err(keys.refused())),
            _ => Err(ConfigError::UnknownType(outline.kind)),
        }
    }

    fn filesystem(yaml: &str, working_directory: &Path) -> Result<Self, ConfigError> {
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
}

/// The document of a store that speaks S3.
fn vendor<K: Default + DeserializeOwned>(
    kind: &'static str,
    yaml: &str,
    settings: impl FnOnce(K) -> Result<(S3Settings, Vec<String>), VendorConfigError>,
) -> Result<BucketConfig, ConfigError> {
    let failed = |error| ConfigError::Vendor {
        kind,
        source: Box::new(error),
    };
    let document: Document<K> = read_yaml(yaml).map_err(|error| {
        let source = Box::new(error);
        failed(VendorConfigError::Yaml { kind, source })
    })?;
    let prefix = document.prefix;
    let (settings, warnings) = settings(document.config.unwrap_or_default()).map_err(failed)?;
    let provider = Provider::S3(Box::new(settings));
    Ok(BucketConfig::new(provider, prefix, warnings))
}

// === impl Provider ===

impl Provider {
    /// The type, as documents name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Filesystem { .. } => "FILESYSTEM",
            Self::S3(settings) => settings.kind,
            Self::Gcs(_) => "GCS",
            Self::Azure(_) => "AZURE",
            Self::Swift(_) => "SWIFT",
        }
    }

    /// What is sent, where that is over a network.
    pub fn client(&self) -> Option<&S3Config> {
        match self {
            Self::Filesystem { .. } => None,
            Self::S3(settings) => Some(&settings.client),
            Self::Gcs(settings) => Some(&settings.client),
            Self::Azure(settings) => Some(&settings.client),
            Self::Swift(settings) => Some(&settings.client),
        }
    }

    /// As [`Provider::client`], to change it.
    pub fn client_mut(&mut self) -> Option<&mut S3Config> {
        match self {
            Self::Filesystem { .. } => None,
            Self::S3(settings) => Some(&mut settings.client),
            Self::Gcs(settings) => Some(&mut settings.client),
            Self::Azure(settings) => Some(&mut settings.client),
            Self::Swift(settings) => Some(&mut settings.client),
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
        for kind in [
            "GCS",
            "AZURE",
            "SWIFT",
            "COS",
            "ALIYUNOSS",
            "BOS",
            "OCI",
            "OBS",
            "S3",
        ] {
            let text = parse(&format!("type: {kind}\nconfig: {{}}\n"))
                .unwrap_err()
                .to_string();
            assert_eq!(text, format!("create {kind} client"));
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
