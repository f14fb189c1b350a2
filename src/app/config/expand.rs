//! `$(VAR)` in documents (contract `cli.md` §4).

use std::ffi::OsString;

/// A document names a variable that cannot be put in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// There is no such variable; one that is set to nothing is fine.
    #[error("found reference to unset environment variable {name:?}")]
    Unset {
        /// The variable.
        name: String,
    },
    /// Its value is no text, and the document is.
    #[error("environment variable {name:?} is not valid UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
}

/// Replaces each `$(NAME)`, where `NAME` is letters, digits and `_`, by the variable's value.
///
/// Everything else stays: `$NAME`, `${NAME}`, `$()`, `$(a b)`, an open `$(`. What comes out of a
/// variable is not looked at again, and there is no escape.
///
/// # Errors
/// Where a variable is not set, or is set to something that is not UTF-8.
pub fn expand(
    text: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
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
                expanded.push_str(&value(name, variable)?);
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

fn value(name: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<String, ExpandError> {
    let value = variable(name).ok_or_else(|| ExpandError::Unset {
        name: name.to_owned(),
    })?;
    value.into_string().map_err(|_| ExpandError::NotText {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

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
                expand(text, &environment).as_deref(),
                Ok(expanded),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_put_in_is_named() {
        let error = expand("a: $(A)\nb: $(NOT_SET)", &environment).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found reference to unset environment variable \"NOT_SET\""
        );
        let error = expand("$(BYTES)", &environment).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable \"BYTES\" is not valid UTF-8"
        );
    }

    proptest! {
        #[test]
        fn text_without_references_is_untouched(text in "[^$]{0,40}|\\$[^(]{0,20}") {
            prop_assert_eq!(expand(&text, &environment), Ok(text));
        }

        #[test]
        fn any_text_expands_or_names_a_variable(text in "([$()A_\\PC]|\\$\\(A\\)){0,40}") {
            match expand(&text, &environment) {
                Ok(expanded) => prop_assert!(!expanded.contains("$(A)") || text.contains("$(")),
                Err(ExpandError::Unset { name } | ExpandError::NotText { name }) => {
                    let reference = format!("$({name})");
                    prop_assert!(text.contains(&reference));
                }
            }
        }
    }
}
