//! `$(VAR)` in documents (contract `cli.md` §4, `prometheus.md` §7.4).

use std::ffi::OsString;

/// A document names a variable that cannot be put in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// There is no such variable; one that is set to nothing is fine.
    #[error("found reference to unset environment variable {name:?}")]
    Unset {
        /// The variable.
        name: String,
        /// The line of the reference, from 1.
        line: usize,
    },
    /// Its value is no text, and the document is.
    #[error("environment variable {name:?} is not valid UTF-8")]
    NotText {
        /// The variable.
        name: String,
        /// The line of the reference, from 1.
        line: usize,
    },
    /// With the values put in, the document is larger than it may be.
    #[error("larger than {bytes_max} bytes once environment variable {name:?} is put in")]
    TooLarge {
        /// The variable whose value was too much.
        name: String,
        /// The line of the reference, from 1.
        line: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl ExpandError {
    /// The line of the reference at fault, from 1.
    pub fn line(&self) -> usize {
        match self {
            Self::Unset { line, .. } | Self::NotText { line, .. } | Self::TooLarge { line, .. } => {
                *line
            }
        }
    }
}

/// Replaces each `$(NAME)`, where `NAME` is letters, digits and `_`, by the variable's value.
///
/// Everything else stays: `$NAME`, `${NAME}`, `$()`, `$(a b)`, an open `$(`. What comes out of a
/// variable is not looked at again, and there is no escape.
///
/// # Errors
/// Where a variable is not set, is set to something that is not UTF-8, or its value makes the
/// document larger than `bytes_max`.
pub fn expand(
    text: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
    bytes_max: usize,
) -> Result<String, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, reference) = rest.split_at(at);
        expanded.push_str(before);
        let (open, after) = reference.split_at("$(".len());
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, behind) = after.split_at(end.unwrap_or(after.len()));
        match behind.strip_prefix(')') {
            Some(behind) if !name.is_empty() => {
                let line = || line_at(text, text.len() - reference.len());
                let value = value(name, variable, line)?;
                if expanded.len() + value.len() > bytes_max {
                    return Err(ExpandError::TooLarge {
                        name: name.to_owned(),
                        line: line(),
                        bytes_max,
                    });
                }
                expanded.push_str(&value);
                rest = behind;
            }
            _ => {
                expanded.push_str(open);
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The line of the byte at `offset`, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn value(
    name: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
    line: impl Fn() -> usize,
) -> Result<String, ExpandError> {
    let value = variable(name).ok_or_else(|| ExpandError::Unset {
        name: name.to_owned(),
        line: line(),
    })?;
    value.into_string().map_err(|_| ExpandError::NotText {
        name: name.to_owned(),
        line: line(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    const BYTES_MAX: usize = 1000;

    fn environment(name: &str) -> Option<OsString> {
        match name {
            "A" => Some("alpha".into()),
            "_b_2" => Some("beta".into()),
            "EMPTY" => Some(OsString::new()),
            "NESTED" => Some("$(A)".into()),
            "9" => Some("nine".into()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    #[test]
    fn only_the_one_form_is_replaced() {
        for (text, expanded) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "alpha"),
            ("x$(A)y$(_b_2)z", "xalphaybetaz"),
            ("$(A)$(A)", "alphaalpha"),
            ("[$(EMPTY)]", "[]"),
            ("$(9)", "nine"),
            ("$(NESTED)", "$(A)"),
            ("$A ${A} $(A", "$A ${A} $(A"),
            ("$() $(A ) $( A) $(A-B) $(é)", "$() $(A ) $( A) $(A-B) $(é)"),
            ("$$(A)", "$alpha"),
            ("\\$(A)", "\\alpha"),
            ("$($(A))", "$(alpha)"),
            ("$(UNSET$(A)", "$(UNSETalpha"),
            ("$(", "$("),
        ] {
            assert_eq!(
                expand(text, &environment, BYTES_MAX).as_deref(),
                Ok(expanded),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_put_in_is_named() {
        let text = "a: $(A)\nb: $(NOT_SET)\n";
        let error = expand(text, &environment, BYTES_MAX).unwrap_err();
        assert_eq!(error.line(), 2);
        assert_eq!(
            error.to_string(),
            "found reference to unset environment variable \"NOT_SET\""
        );
        let error = expand("$(BYTES)", &environment, BYTES_MAX).unwrap_err();
        assert_eq!(error.line(), 1);
        assert_eq!(
            error.to_string(),
            "environment variable \"BYTES\" is not valid UTF-8"
        );
    }

    #[test]
    fn a_text_grows_to_the_limit_and_no_further() {
        assert_eq!(expand("$(A)", &environment, 5).as_deref(), Ok("alpha"));
        let error = expand("\n\n$(A)$(A)", &environment, 11).unwrap_err();
        let name = "A".to_owned();
        let (line, bytes_max) = (3, 11);
        assert_eq!(
            error,
            ExpandError::TooLarge {
                name,
                line,
                bytes_max
            }
        );
        assert_eq!(error.line(), 3);
    }

    proptest! {
        #[test]
        fn text_without_references_is_untouched(text in "[^$]{0,40}|\\$[^(]{0,20}") {
            prop_assert_eq!(expand(&text, &environment, BYTES_MAX), Ok(text));
        }

        #[test]
        fn any_text_expands_or_names_a_variable(text in "([$()A_\\PC]|\\$\\(A\\)){0,40}") {
            match expand(&text, &environment, BYTES_MAX) {
                Ok(expanded) => prop_assert!(!expanded.contains("$(A)") || text.contains("$(")),
                Err(error) => {
                    let (ExpandError::Unset { name, line }
                    | ExpandError::NotText { name, line }
                    | ExpandError::TooLarge { name, line, .. }) = error;
                    let reference = format!("$({name})");
                    let named = text.split('\n').nth(line - 1).unwrap();
                    prop_assert!(named.contains(&reference));
                }
            }
        }
    }
}
