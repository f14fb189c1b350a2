//! HTML into which nothing gets unescaped but what stands in this program's text.

use std::fmt::{self, Write as _};

/// A document that is being written.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

/// Escapes what is written into it, up to a length.
struct Escaping<'a> {
    into: &'a mut String,
    /// Where `into` may not grow beyond.
    bytes_max: usize,
    is_cut: bool,
}

/// Stands for what was left out.
const ELLIPSIS: &str = "…";

// === impl Markup ===

impl Markup {
    /// Appends markup of this program: a literal, so that nothing from outside can be taken for it.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends a text of bounded length, escaped.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        self.cut(text, usize::MAX)
    }

    /// Appends a text, escaped, and no more than so many bytes of it as it is escaped.
    pub(super) fn cut(&mut self, text: impl fmt::Display, bytes_max: usize) -> &mut Self {
        let bytes_max = self.0.len().saturating_add(bytes_max);
        let mut escaping = Escaping {
            into: &mut self.0,
            bytes_max,
            is_cut: false,
        };
        // Only a cut is an error here.
        if write!(escaping, "{text}").is_err() || escaping.is_cut {
            self.0.push_str(ELLIPSIS);
        }
        self
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut utf8 = [0; 4];
            let escaped = match character {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&#39;",
                control if control.is_control() => " ",
                other => other.encode_utf8(&mut utf8),
            };
            if self.into.len() + escaped.len() > self.bytes_max {
                self.is_cut = true;
                return Err(fmt::Error);
            }
            self.into.push_str(escaped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str, bytes_max: usize) -> String {
        let mut markup = Markup::default();
        markup.cut(text, bytes_max);
        markup.finish()
    }

    #[test]
    fn what_could_be_markup_is_escaped() {
        let mut markup = Markup::default();
        markup.raw("<p>").text("<a href=\"x\" b='y'>&\0\n</a>");
        assert_eq!(
            markup.finish(),
            "<p>&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;  &lt;/a&gt;"
        );
    }

    #[test]
    fn a_cut_is_between_characters_and_is_seen() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("a<b", 4), "a…", "an escape is whole or not there");
        assert_eq!(cut("äöü", 3), "ä…");
        assert_eq!(cut("", 0), "");
    }

    proptest! {
        #[test]
        fn no_text_gets_out_of_its_place(text in any::<String>(), bytes_max in 0usize..64) {
            let escaped = cut(&text, bytes_max);
            prop_assert!(escaped.len() <= bytes_max + ELLIPSIS.len());
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }
}
