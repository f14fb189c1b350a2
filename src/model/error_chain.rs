//! How an error and its causes are told in one line, for the place where the error is handled.

use std::error::Error;
use std::fmt;

/// Prints an error and its sources, outermost first, joined by `: `.
///
/// An error type that repeats its source's text in its own is not printed twice.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.0))
    }
}

fn joined(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let Some(source) = error.source() else {
        return text;
    };
    let rest = joined(source);
    if text.ends_with(&rest) {
        return text;
    }
    // The source itself may be told already, but not what is behind it.
    let told = source.to_string();
    match rest.strip_prefix(&told) {
        Some(behind) if !told.is_empty() && text.ends_with(&told) => text.push_str(behind),
        _ if text.is_empty() => text = rest,
        _ => {
            text.push_str(": ");
            text.push_str(&rest);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Level(&'static str, Option<Box<Level>>);

    impl fmt::Display for Level {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Level {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    fn chain(levels: &[&'static str]) -> String {
        let error = levels
            .iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Level(text, source))));
        ErrorChain(error.unwrap().as_ref()).to_string()
    }

    #[test]
    fn levels_are_joined_and_none_is_told_twice() {
        for (levels, text) in [
            (&["a"][..], "a"),
            (&["a", "b", "c"], "a: b: c"),
            (&["a: b", "b"], "a: b"),
            (&["a: b", "b", "c"], "a: b: c"),
            (&["a: b: c", "b", "c"], "a: b: c"),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (&["a", "b: c", "c"], "a: b: c"),
            (&["same", "same"], "same"),
            (&["a", "", "c"], "a: c"),
            (&["", "b"], "b"),
        ] {
            assert_eq!(chain(levels), text, "{levels:?}");
        }
    }
}
