//! Flag values that are text: paths, which need not be UTF-8, and YAML, which may hold secrets.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A path that may be left out; an empty value is the same as none.
pub type OptionalPath = Option<PathBuf>;

/// A YAML document given on the command line. Its `Debug` form does not show it: documents of the
/// bucket and of the HTTP client hold keys and passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InlineYaml(String);

/// Takes any bytes as a path, also none at all.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Takes any bytes as a path, and no bytes as none.
pub(super) fn optional_path() -> impl TypedValueParser<Value = OptionalPath> {
    OsStringValueParser::new().map(|value| (!value.is_empty()).then(|| PathBuf::from(value)))
}

// === impl InlineYaml ===

impl InlineYaml {
    /// The document, empty where the flag was not given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InlineYaml {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for InlineYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineYaml({} bytes)", self.0.len())
    }
}
