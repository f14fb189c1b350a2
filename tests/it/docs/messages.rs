//! The tables of log messages and errors in `docs/operations.md` against the sources.
//!
//! A message is documented as it is written, with `…` for each placeholder. One that is nothing
//! but a placeholder is told by the field that says whom it is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::page::{Page, code, pages, root};

/// What takes the place of a placeholder.
const SOMETHING: &str = "…";

/// A message and its level.
type Message = (String, String);

/// The product's sources, without their tests.
fn sources() -> Vec<String> {
    let mut texts = Vec::new();
    let mut left = vec![root().join("src")];
    while let Some(path) = left.pop() {
        let name = path.file_stem().unwrap_or_default();
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            let inner = entries.map(|entry| entry.unwrap().path());
            left.extend(inner.filter(|path| !path.ends_with("tests")));
        } else if path.extension() == Some("rs".as_ref()) && name != "tests" {
            texts.push(product(&fs::read_to_string(&path).unwrap()).to_owned());
        }
    }
    assert!(texts.len() > 100);
    texts
}

/// A source without the tests at its end.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// A string literal: where it begins, how deep in brackets it is, what it says.
type Literal = (usize, usize, String);

/// The string literals of a text.
fn literals(text: &str) -> Vec<Literal> {
    scan(text).0
}

/// The string literals of a text, and where its first bracket is closed.
fn scan(text: &str) -> (Vec<Literal>, usize) {
    let bytes = text.as_bytes();
    let (mut found, mut depth, mut at, mut closed) = (Vec::new(), 0_usize, 0, text.len());
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    closed = closed.min(at);
                }
            }
            b'\'' => at = after_character(text, at),
            b'/' if text[at..].starts_with("//") => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
            }
            b'"' => {
                let (literal, end) = literal(text, at);
                found.push((at, depth, literal));
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    (found, closed)
}

/// Where a character literal that begins at `at` ends; `at` where it is a lifetime.
fn after_character(text: &str, at: usize) -> usize {
    let mut rest = text[at + 1..].char_indices();
    match rest.next() {
        Some((_, '\\')) => {
            let end = text[at + 3..].find('\'').unwrap_or(0);
            at + 3 + end
        }
        Some(_) => match rest.next() {
            Some((offset, '\'')) => at + 1 + offset,
            _ => at,
        },
        None => at,
    }
}

/// The literal whose opening quote is at `start`, and where its closing one is.
fn literal(text: &str, start: usize) -> (String, usize) {
    let mut literal = String::new();
    let mut rest = text[start + 1..].char_indices().peekable();
    while let Some((offset, c)) = rest.next() {
        match c {
            '"' => return (literal, start + 1 + offset),
            '\\' => match rest.next() {
                Some((_, '\n')) => while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n')) => literal.push('\n'),
                Some((_, 't')) => literal.push('\t'),
                Some((_, other)) => literal.push(other),
                None => {}
            },
            c => literal.push(c),
        }
    }
    panic!("a literal without an end: {}", &text[start..]);
}

/// A format string with `…` for what is put in.
fn without_placeholders(format: &str) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.next_if_eq(&c).is_some() => text.push(c),
            '{' => {
                depth += 1;
                text.push_str(SOMETHING);
            }
            '}' => depth -= 1,
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text
}

/// The messages of the macros of a source.
fn logged(source: &str) -> Vec<Message> {
    let mut found = Vec::new();
    for (level, call) in [("error", "tracing::error!("), ("warn", "tracing::warn!(")] {
        for (start, _) in source.match_indices(call) {
            let arguments = &source[start + call.len() - 1..];
            found.push((level.to_owned(), message(arguments)));
        }
    }
    found
}

/// The message of a macro, whose arguments begin with the opening bracket.
fn message(arguments: &str) -> String {
    let (literals, end) = scan(arguments);
    let mut about = String::new();
    for (at, _, literal) in literals
        .into_iter()
        .filter(|(at, depth, _)| *at < end && *depth == 1)
    {
        let field = arguments[..at].trim_end().strip_suffix('=');
        match field.map(str::trim_end) {
            Some(field) if field.ends_with("flag") => about = format!(" (flag={literal})"),
            Some(field) if field.ends_with("component") => {
                about = format!(" (component={literal})");
            }
            Some(_) => {}
            None => {
                let message = without_placeholders(&literal);
                return match message == SOMETHING {
                    true => message + &about,
                    false => message,
                };
            }
        }
    }
    format!("err={SOMETHING}")
}

fn documented(page: &Page) -> Vec<Message> {
    let rows = page.rows(&["Level", "Message", "Meaning", "Remedy"]);
    let rows = rows.into_iter().map(|cells| {
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{cells:?}");
        (cells[0].clone(), code(&cells[1]).to_owned())
    });
    rows.collect()
}

/// What one has and the other has not.
fn differences(documented: &[Message], logged: &BTreeSet<Message>) -> Vec<String> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for (level, message) in documented {
        if !known.insert((level.clone(), message.clone())) {
            found.push(format!("twice in the tables: {level} `{message}`"));
        }
    }
    for (level, message) in logged.difference(&known) {
        found.push(format!("not in the tables: {level} `{message}`"));
    }
    for (level, message) in known.difference(logged) {
        found.push(format!("not logged anywhere: {level} `{message}`"));
    }
    found
}

/// Whether a text that is quoted with `…` for what is left out is part of a literal.
fn is_quoted_from(quote: &str, literal: &str) -> bool {
    let mut rest = literal;
    quote.split(SOMETHING).all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn each_warning_and_error_is_documented() {
    let mut all = BTreeSet::new();
    for source in sources() {
        for call in [
            "tracing::event!",
            "log::error!",
            "log::warn!",
            "Level::Warn;",
        ] {
            assert!(!source.contains(call), "{call} would go unnoticed");
        }
        all.extend(logged(&source));
    }
    assert!(all.len() > 80, "{}", all.len());
    let page = Page::read("docs/operations.md");
    assert_eq!(differences(&documented(&page), &all), Vec::<String>::new());
}

#[test]
fn texts_that_are_quoted_are_in_the_sources() {
    let mut known = Vec::new();
    for source in sources() {
        let found = literals(&source).into_iter();
        known.extend(found.map(|(_, _, literal)| without_placeholders(&literal)));
    }
    let mut found = Vec::new();
    for page in pages() {
        for (place, span) in page.spans() {
            let is_text = span.contains(SOMETHING) && span.contains(' ') && !span.contains('=');
            if is_text && !known.iter().any(|literal| is_quoted_from(&span, literal)) {
                found.push(format!("{place}: {span}"));
            }
        }
    }
    for cells in Page::read("docs/operations.md").rows(&["Error", "Meaning", "Remedy"]) {
        let error = code(&cells[0]);
        if !known.iter().any(|literal| is_quoted_from(error, literal)) {
            found.push(format!("docs/operations.md: {error}"));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn messages_are_taken_out_of_the_macros() {
    let source = r#"
        tracing::warn!(err = %x, remedy = "none", "one \
            line, {place} of {{it}}");
        tracing::error!(block = %y.map(|b| format!("{b}")), 'a', "it's \"so\"");
        tracing::error!(err = %ErrorChain(&error));
        tracing::warn!(component = "http", flag = "http.config", "{warning}");
        tracing::info!("not this");
    "#;
    let seen: Vec<_> = logged(source).into_iter().map(|(_, text)| text).collect();
    let expected = [
        "it's \"so\"",
        "err=…",
        "one line, … of {it}",
        "… (flag=http.config)",
    ];
    assert_eq!(seen, expected);
    assert_eq!(product("a\n#[cfg(test)]\nmod tests {\n"), "a\n");
    assert!(Path::new(&root().join("src")).is_dir());
}

#[test]
fn what_is_missing_or_gone_is_found() {
    let row = |level: &str, message: &str| (level.to_owned(), message.to_owned());
    let logged = BTreeSet::from([row("warn", "a"), row("error", "b")]);
    let documented = [row("warn", "a"), row("warn", "a"), row("warn", "b")];
    assert_eq!(differences(&documented, &logged).len(), 3);
    assert!(is_quoted_from("no … file", "there is no such file here"));
    assert!(!is_quoted_from("no … file", "a file there is no"));
}
