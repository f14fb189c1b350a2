//! A block's identity: the ULID that names its directory and its objects in the bucket.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use super::TimestampMs;

/// The ULID of a TSDB block.
///
/// Its text form is the canonical one (26 upper-case Crockford characters, first at most `7`),
/// because that text is a directory name and an object prefix: two spellings of one ULID would be
/// two different blocks to a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Ulid);

/// The text is not a ULID in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a block ULID (26 upper-case Crockford base-32 characters)")]
pub struct InvalidBlockId(String);

impl BlockId {
    /// The identity with this 128-bit value.
    pub fn from_u128(value: u128) -> Self {
        Self(Ulid::from(value))
    }

    /// When the block was made, in milliseconds since the Unix epoch.
    pub fn created(self) -> TimestampMs {
        // 48 bits.
        TimestampMs(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
    }

    /// Parses a file name; `None` where it is not the canonical text of a ULID.
    pub fn from_file_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl FromStr for BlockId {
    type Err = InvalidBlockId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Ulid::from_string(text) {
            Ok(ulid) if ulid.to_string() == text => Ok(Self(ulid)),
            _ => Err(InvalidBlockId(text.to_owned())),
        }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for BlockId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_canonical_text_only() {
        let text = "01HZXW7J7T3Q9V8N2M4K6B5A0C";
        assert_eq!(text.parse::<BlockId>().unwrap().to_string(), text);
        for bad in [
            "",
            "01hzxw7j7t3q9v8n2m4k6b5a0c",
            "81HZXW7J7T3Q9V8N2M4K6B5A0C",
            "01HZXW7J7T3Q9V8N2M4K6B5A0",
            "01HZXW7J7T3Q9V8N2M4K6B5A0C.tmp-for-creation",
            "01HZXW7J7T3Q9V8N2M4K6B5A0I",
            "O1HZXW7J7T3Q9V8N2M4K6B5A0C",
        ] {
            assert!(bad.parse::<BlockId>().is_err(), "{bad}");
        }
    }
}
