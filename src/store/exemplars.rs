//! Which exemplars to ask Prometheus for.
//!
//! The query is an expression, of which only the selectors count. Prometheus' data does not carry
//! the external labels, so matchers of these are resolved here, as they are for Series; the
//! reference leaves them in and finds nothing (contract `grpc.md` §3.6b).

use super::StoreError;
use super::request::resolve;
use super::selector::selectors;
use crate::model::{ExternalLabels, Matcher, Selector};
use crate::proto::thanos::LabelMatcher;

/// The longest query in which selectors are rewritten.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// The most words, numbers and operators of such a query outside its selectors. The parser goes
/// one level deeper with each at worst, and has no limit of its own.
const TOKENS_MAX: usize = 500;
/// The most regular expressions in it; the parser compiles each.
const PATTERNS_MAX: usize = 20;
/// What a selector becomes that had conditions on external labels only.
const ANY_SERIES: &str = "{__name__!=\"\"}";

/// What to ask for: the query as it is where no selector names an external label or it can't be
/// parsed (Prometheus then says why), else its selectors without them; `None` where none of them
/// can match.
///
/// # Errors
/// Where a matcher's pattern is no regular expression, or the query is too large to be rewritten.
pub fn exemplars_query(
    query: &str,
    external: &ExternalLabels,
) -> Result<Option<String>, StoreError> {
    let unchanged = Ok(Some(query.to_owned()));
    let mut names = external.0.iter().filter(|(_, value)| !value.is_empty());
    if !names.any(|(name, _)| query.contains(name)) {
        return unchanged;
    }
    check_size(query)?;
    let Ok(found) = selectors(query) else {
        return unchanged;
    };
    let is_external = |matcher: &LabelMatcher| external.value(&matcher.name).is_some();
    if !found.iter().flatten().any(is_external) {
        return unchanged;
    }
    let mut asked = Vec::new();
    for matchers in found {
        if let Some(left) = resolve(matchers, external)? {
            asked.push(selector(&left));
        }
    }
    Ok((!asked.is_empty()).then(|| asked.join(" or ")))
}

/// Refuses what the parser could not take within bounds.
fn check_size(query: &str) -> Result<(), StoreError> {
    let patterns = query.matches("=~").count() + query.matches("!~").count();
    for (what, got, limit) in [
        (
            "bytes of query with an external label",
            query.len(),
            QUERY_BYTES_MAX,
        ),
        (
            "terms of query with an external label",
            tokens(query),
            TOKENS_MAX,
        ),
        (
            "patterns of query with an external label",
            patterns,
            PATTERNS_MAX,
        ),
    ] {
        if got > limit {
            return Err(StoreError::RequestTooLarge { what, got, limit });
        }
    }
    Ok(())
}

/// How many words, numbers and operators there are outside quotes, braces and comments, as the
/// parser reads them; too many rather than too few where the text is no PromQL.
fn tokens(query: &str) -> usize {
    let (mut count, mut quote, mut braces, mut in_word) = (0, None, false, false);
    let mut characters = query.chars();
    while let Some(character) = characters.next() {
        let is_word = character.is_alphanumeric() || matches!(character, '_' | ':' | '.');
        let goes_on = std::mem::replace(&mut in_word, false);
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '#') => drop(characters.find(|c| matches!(c, '\r' | '\n'))),
            (None, '{') => braces = true,
            (None, '}') => braces = false,
            _ if braces => {}
            _ => {
                in_word = is_word;
                let is_new = !(character.is_whitespace() || is_word && goes_on);
                count += usize::from(is_new);
            }
        }
    }
    count
}

fn selector(matchers: &[Matcher]) -> String {
    match matchers {
        [] => ANY_SERIES.to_owned(),
        matchers => Selector(matchers).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn asked(query: &str) -> Option<String> {
        let labels = [("cluster", "a"), ("empty", "")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let external = ExternalLabels(Labels::from_iter(labels));
        exemplars_query(query, &external).unwrap()
    }

    #[test]
    fn queries_without_external_labels_stay_as_they_are() {
        for query in [
            "rate(x_bucket[5m]) > 1",
            "x{job=~\"a.*\"}",
            "x{empty=\"b\"}",
            "not promql(",
            "x{a=\"b\" or cluster=\"a\"}",
        ] {
            assert_eq!(asked(query).as_deref(), Some(query));
        }
    }

    #[test]
    fn what_the_parser_could_not_bear_is_refused() {
        let deep = format!("{}x{{cluster=\"a\"}}{}", "(".repeat(4000), ")".repeat(4000));
        let chain = format!("x{{cluster=\"a\"}}{}", " and x".repeat(600));
        let signs = format!("{}x{{cluster=\"a\"}}", "-".repeat(3000));
        let patterns = format!("x{{cluster=\"a\"{}}}", ",y=~\"z\"".repeat(30));
        let long = format!("x{{cluster=\"a\",y=\"{}\"}}", "z".repeat(20_000));
        let labels = [("cluster".to_owned(), "a".to_owned())];
        let external = ExternalLabels(Labels::from_iter(labels));
        for query in [deep, chain, signs, patterns, long] {
            let refused = exemplars_query(&query, &external).unwrap_err();
            assert!(
                matches!(refused, StoreError::RequestTooLarge { .. }),
                "{refused}"
            );
            // Without the label's name it is Prometheus' to judge.
            let other = query.replace("cluster", "others");
            let unchanged = exemplars_query(&other, &external).unwrap();
            assert_eq!(unchanged, Some(other));
        }
        // As deep as is allowed.
        let deep = format!("{}x{{cluster=\"a\"}}{}", "(".repeat(245), ")".repeat(245));
        assert_eq!(asked(&deep).unwrap(), "{__name__=\"x\"}");
        let signs = format!("{}x{{cluster=\"a\"}}", "-".repeat(490));
        assert_eq!(asked(&signs).unwrap(), "{__name__=\"x\"}");
    }

    #[test]
    fn nothing_hides_terms_from_the_count() {
        let deep = format!("{}x{{cluster=\"a\"}}{}", "(".repeat(600), ")".repeat(600));
        for before in [
            "# {\n",
            "# \"\r",
            "x{a=\"1\" # }\n} and ",
            "label_replace(x, `\\``, \"b\", \"c\", \"d\") and ",
        ] {
            let counted = tokens(&format!("{before}{deep}"));
            assert!(counted > 1200, "{before:?}: {counted}");
        }
        let chain = vec!["{cluster=\"a\"}"; 700].join("and");
        assert!(tokens(&chain) >= 699);
        let quoted = format!("x{{y=~\"{}\"}} # {}", "(a|b)".repeat(600), "(".repeat(600));
        assert_eq!(tokens(&quoted), 1);
    }

    #[test]
    fn matchers_of_external_labels_are_resolved() {
        assert_eq!(
            asked("sum(rate(x{cluster=\"a\", job!=\"b\"}[1m]))").unwrap(),
            "{__name__=\"x\", job!=\"b\"}"
        );
        assert_eq!(
            asked("x{cluster=~\"a|b\"} / on() y{cluster=\"b\"}").unwrap(),
            "{__name__=\"x\"}"
        );
        assert_eq!(
            asked("x{cluster=\"a\"} + y").unwrap(),
            "{__name__=\"x\"} or {__name__=\"y\"}"
        );
        assert_eq!(asked("{cluster=\"a\"}").unwrap(), ANY_SERIES);
        assert_eq!(asked("x{cluster!=\"a\"}"), None);
        assert_eq!(asked("max_over_time(x{cluster=\"b\"}[5m:1m])"), None);
    }
}
