//! The parameters of a question: selectors, times, names, percent-encoded.

use std::fmt::Write as _;

use super::Scope;
use crate::model::{Matcher, Selector};
use crate::prometheus::request::Question;

/// The first instant that Prometheus' time parsing takes without overflow, ms since the epoch:
/// what it assumes itself where no start is given.
pub const API_TIME_MIN_MS: i64 = -9_223_309_901_257_974_000;
/// The last such instant.
pub const API_TIME_MAX_MS: i64 = 9_223_309_901_257_974_000;
/// Longer queries are sent as forms, where the endpoint takes them: proxies take some 8 KiB of
/// header, and the URLs here end at 64 KiB.
pub(in crate::prometheus) const URL_QUERY_BYTES_MAX: usize = 4 << 10;
/// What marks an escaped name.
const ESCAPED: &str = "U__";

/// A URL's query in the making.
#[derive(Debug, Default)]
pub(super) struct Params(String);

impl Params {
    pub(super) fn of(scope: Scope<'_>) -> Self {
        let mut params = Self::default();
        if !scope.matchers.is_empty() {
            params.selector(scope.matchers);
        }
        if let Some(start_ms) = scope.start_ms {
            params.time("start", start_ms);
        }
        if let Some(end_ms) = scope.end_ms {
            params.time("end", end_ms);
        }
        if let Some(limit) = scope.limit.filter(|limit| *limit > 0) {
            params.put("limit", &limit.to_string());
        }
        params
    }

    /// One more `match[]`.
    pub(super) fn selector(&mut self, matchers: &[Matcher]) {
        self.put("match[]", &Selector(matchers).to_string());
    }

    pub(super) fn time(&mut self, name: &str, ms: i64) {
        self.put(name, &seconds(ms));
    }

    pub(super) fn put(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        percent_encode(&mut self.0, name.as_bytes());
        self.0.push('=');
        percent_encode(&mut self.0, value.as_bytes());
    }

    /// Where they go: into the URL, or into a form once that would be long.
    pub(super) fn into_question(self) -> Question {
        match self.0.len() > URL_QUERY_BYTES_MAX {
            true => Question::Form(self.0),
            false => Question::Query(self.0),
        }
    }

    pub(super) fn into_query(self) -> String {
        self.0
    }
}

impl From<Params> for Question {
    fn from(params: Params) -> Self {
        Self::Query(params.into_query())
    }
}

/// Unix seconds as the shortest decimal without exponent, of a time within what can be parsed.
fn seconds(ms: i64) -> String {
    let ms = ms.clamp(API_TIME_MIN_MS, API_TIME_MAX_MS);
    let sign = if ms < 0 { "-" } else { "" };
    let (whole, part) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
    match part {
        0 => format!("{sign}{whole}"),
        part => {
            let text = format!("{sign}{whole}.{part:03}");
            text.trim_end_matches('0').to_owned()
        }
    }
}

/// A label's name as an element of a path: as it is where Prometheus' older rules know it, else
/// escaped as the `values` scheme has it. A name that only looks escaped is escaped, too.
pub(in crate::prometheus) fn path_name(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let starts_with_digit = name.starts_with(|c: char| c.is_ascii_digit());
    if name.bytes().all(plain) && !starts_with_digit && !name.starts_with(ESCAPED) {
        return name.to_owned();
    }
    let mut out = ESCAPED.to_owned();
    for (position, c) in name.char_indices() {
        match c {
            '_' => out.push_str("__"),
            c if c.is_ascii_digit() && position > 0 => out.push(c),
            c if c.is_ascii_alphabetic() || c == ':' => out.push(c),
            // Writing to a string does not fail.
            c => drop(write!(out, "_{:x}_", u32::from(c))),
        }
    }
    out
}

/// All but the unreserved characters of RFC 3986.
pub(in crate::prometheus) fn percent_encode(out: &mut String, text: &[u8]) {
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MatchOp;
    use crate::net::http::percent_decoded;
    use proptest::prelude::*;

    #[test]
    fn times_are_the_shortest_decimals_and_stay_parsable() {
        for (ms, expected) in [
            (0, "0"),
            (1_700_000_000_123, "1700000000.123"),
            (1_700_000_000_120, "1700000000.12"),
            (1_700_000_000_100, "1700000000.1"),
            (1_700_000_000_000, "1700000000"),
            (-1, "-0.001"),
            (-1_500, "-1.5"),
            (i64::MIN, "-9223309901257974"),
            (i64::MAX, "9223309901257974"),
        ] {
            assert_eq!(seconds(ms), expected);
        }
    }

    #[test]
    fn names_are_escaped_where_paths_need_it() {
        for (name, expected) in [
            ("job", "job"),
            ("a:b_1", "a:b_1"),
            ("label.with.dots", "U__label_2e_with_2e_dots"),
            ("a/b", "U__a_2f_b"),
            ("..", "U___2e__2e_"),
            ("a_b.c", "U__a__b_2e_c"),
            ("1a", "U___31_a"),
            ("a1.", "U__a1_2e_"),
            ("ä🦀", "U___e4__1f980_"),
            ("U__a_2e_b", "U__U____a__2e__b"),
        ] {
            assert_eq!(path_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_scope_becomes_a_query() {
        let matchers = [Matcher {
            op: MatchOp::Regex,
            name: "a".to_owned(),
            value: "b&c=d +%".to_owned(),
        }];
        let scope = Scope {
            matchers: &matchers,
            start_ms: Some(-1),
            end_ms: Some(5_000),
            limit: Some(7),
        };
        let query = Params::of(scope).into_query();
        let expected = "match%5B%5D=%7Ba%3D~%22b%26c%3Dd%20%2B%25%22%7D&start=-0.001&end=5&limit=7";
        assert_eq!(query, expected);
        assert_eq!(Params::of(Scope::default()).into_query(), "");
        let unlimited = Scope {
            limit: Some(0),
            ..Scope::default()
        };
        assert_eq!(Params::of(unlimited).into_query(), "");
    }

    proptest! {
        #[test]
        fn encoding_is_undone_by_decoding(text in "\\PC{0,40}") {
            let mut out = String::new();
            percent_encode(&mut out, text.as_bytes());
            prop_assert!(out.is_ascii());
            prop_assert_eq!(percent_decoded(&out), text);
        }
    }
}
