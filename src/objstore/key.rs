//! Names of objects.

use std::fmt;

/// The longest key that S3 takes, in bytes (S3 user guide, "Creating object key names").
const KEY_BYTES_MAX: usize = 1024;

/// The name of an object: `/`-separated parts, none empty, none `.` or `..`, at most 1024 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// The text can't name an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no object name (parts between `/` must not be empty, `.` or `..`; 1024 bytes at most)"
)]
pub struct InvalidKey(String);

impl ObjectKey {
    /// Checks `text`.
    ///
    /// # Errors
    /// Where it can't name an object.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let part_is_fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if text.len() <= KEY_BYTES_MAX && text.split('/').all(part_is_fine) {
            Ok(Self(text))
        } else {
            Err(InvalidKey(text))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This key below `prefix`.
    ///
    /// # Errors
    /// Where the two are too long together.
    pub fn below(&self, prefix: &Self) -> Result<Self, InvalidKey> {
        Self::new(format!("{}/{}", prefix.0, self.0))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_the_bucket() {
        for good in ["a", "01H/chunks/000001", "a/b.c/…"] {
            assert!(ObjectKey::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(1025);
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", &long] {
            assert!(ObjectKey::new(bad).is_err(), "{bad}");
        }
        let prefix = ObjectKey::new("p/q").unwrap();
        assert_eq!(
            ObjectKey::new("a")
                .unwrap()
                .below(&prefix)
                .unwrap()
                .as_str(),
            "p/q/a"
        );
        assert!(
            ObjectKey::new("x".repeat(1022))
                .unwrap()
                .below(&prefix)
                .is_err()
        );
    }
}
