//! What a string says, by Go's rules, which Prometheus reads it by: an escape of one byte is a byte
//! and no character, so two of them may be one.

use super::RewriteError;

/// The content of a string with its quotes.
pub(super) fn unquoted(literal: &str) -> Result<String, RewriteError> {
    let content = || {
        let quote = literal.chars().next()?;
        let content = literal.strip_prefix(quote)?.strip_suffix(quote)?;
        match quote {
            '`' => Some(content.as_bytes().to_vec()),
            '"' | '\'' => bytes(content, quote),
            _ => None,
        }
    };
    let bytes = content();
    let bytes = bytes.ok_or_else(|| RewriteError::Syntax("invalid string".to_owned()))?;
    String::from_utf8(bytes).map_err(|_| RewriteError::Unsupported {
        what: "string that is not UTF-8".to_owned(),
    })
}

fn bytes(content: &str, quote: char) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        if c == quote || c == '\n' {
            return None;
        }
        if c != '\\' {
            push(&mut bytes, c);
            continue;
        }
        let escape = rest.chars().next()?;
        let escaped = rest;
        rest = rest.get(escape.len_utf8()..)?;
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            c if c == quote => push(&mut bytes, c),
            '0'..='7' => {
                bytes.push(u8::try_from(number(escaped, 3, 8)?).ok()?);
                rest = escaped.get(3..)?;
            }
            'x' => {
                bytes.push(u8::try_from(number(rest, 2, 16)?).ok()?);
                rest = rest.get(2..)?;
            }
            'u' => {
                push(&mut bytes, char::from_u32(number(rest, 4, 16)?)?);
                rest = rest.get(4..)?;
            }
            'U' => {
                push(&mut bytes, char::from_u32(number(rest, 8, 16)?)?);
                rest = rest.get(8..)?;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The number that the first `digits` bytes write.
fn number(text: &str, digits: usize, radix: u32) -> Option<u32> {
    let written = text.get(..digits)?;
    let is_digit = |c: char| c.is_digit(radix);
    written.chars().all(is_digit).then_some(())?;
    u32::from_str_radix(written, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_gos() {
        for (literal, content) in [
            (r#""a\"b'`""#, "a\"b'`"),
            (r#"'a\'b"'"#, "a'b\""),
            (r"`a\n'\x`", r"a\n'\x"),
            (r#""\xc3\xa4\303\244\u00e4\U000000e4ä""#, "äääää"),
            (r#""\a\b\f\n\r\t\v\\\101""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\A"),
            (r#""""#, ""),
            ("``", ""),
        ] {
            assert_eq!(unquoted(literal).as_deref(), Ok(content), "{literal}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for literal in [
            r#""\ä""#,
            r#""\x4""#,
            r#""\xä""#,
            r#""\400""#,
            r#""\'""#,
            r#"'\"'"#,
            r#""\ud800""#,
            r#""\U00110000""#,
            r#""\u+123""#,
            r#""a"#,
            "\"",
            "\"a\nb\"",
            r#""\8""#,
            "a",
            "",
            r#""\"#,
        ] {
            let refused = unquoted(literal);
            assert!(
                matches!(refused, Err(RewriteError::Syntax(_))),
                "{literal}: {refused:?}"
            );
        }
        let refused = unquoted(r#""\xff""#).unwrap_err();
        assert_eq!(refused.to_string(), "unsupported string that is not UTF-8");
    }
}
