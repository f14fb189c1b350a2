//! Shortcuts against the plain expression, and which patterns get which.

use proptest::prelude::*;

use super::*;

fn matcher(pattern: &str) -> PatternMatcher {
    let parsed = Pattern::parse(pattern.as_bytes()).unwrap();
    PatternMatcher::new(&parsed).unwrap_or_else(|error| panic!("{pattern:?}: {error}"))
}

fn literals(pattern: &str) -> Vec<String> {
    let matcher = matcher(pattern);
    assert!(matcher.globs.is_empty(), "{pattern:?}: {matcher:?}");
    let texts = matcher.literals().map(|l| String::from_utf8(l.to_vec()));
    texts.map(Result::unwrap).collect()
}

fn prefixes(pattern: &str) -> Vec<String> {
    let matcher = matcher(pattern);
    let texts = matcher.prefixes().into_iter().map(<[u8]>::to_vec);
    texts.map(|p| String::from_utf8(p).unwrap()).collect()
}

#[test]
fn lists_of_names_are_looked_up() {
    assert_eq!(literals("abc"), ["abc"]);
    assert_eq!(literals(""), [""]);
    assert_eq!(literals("b|a|b"), ["a", "b"]);
    assert_eq!(literals("a|"), ["", "a"]);
    assert_eq!(literals("a(b|c)d"), ["abd", "acd"]);
    assert_eq!(literals("a(b|c)?"), ["a", "ab", "ac"]);
    assert_eq!(literals("node[1-3]"), ["node1", "node2", "node3"]);
    assert_eq!(literals(r"10\.0\.0\.1:9100"), ["10.0.0.1:9100"]);
    assert_eq!(literals(r"\Qa.b\E"), ["a.b"]);
    assert_eq!(literals("^(?:abc|def)$"), ["abc", "def"]);
    assert_eq!(literals("^abc$|^def$"), ["abc", "def"]);
    assert_eq!(literals("(?i)ab"), ["AB", "Ab", "aB", "ab"]);
    // The Kelvin sign and the long s fold to ASCII letters.
    assert_eq!(literals("(?i)k"), ["K", "k", "\u{212a}"]);
    assert_eq!(literals("(?i)s"), ["S", "s", "\u{17f}"]);
    assert_eq!(literals("é|ü"), ["é", "ü"]);
    assert_eq!(literals("a{3}"), ["aaa"]);
    assert!(literals("[a&&b]{0}a^b|x$y").is_empty());
    let many: Vec<String> = (0..10_000).map(|n| format!("pod-{n:05}")).collect();
    assert_eq!(literals(&many.join("|")), many);
}

#[test]
fn beginnings_and_endings_need_no_expression() {
    for (pattern, expected) in [
        ("abc.*", vec!["abc"]),
        ("abc.+", vec!["abc"]),
        ("abc.*def", vec!["abc"]),
        ("a.*|b.*|aa.+x", vec!["a", "b"]),
        ("^abc.*$", vec!["abc"]),
        (".*abc", vec![""]),
        (".*abc.*", vec![""]),
        (".+a.*b.+", vec![""]),
        ("x|y.*z", vec!["y"]),
        ("(?i)ab.*", vec!["AB", "Ab", "aB", "ab"]),
    ] {
        let found = matcher(pattern);
        assert!(found.regex.is_none(), "{pattern:?}: {found:?}");
        assert_eq!(prefixes(pattern), expected, "{pattern:?}");
    }
}

#[test]
fn what_is_left_is_run_only_on_what_may_fit() {
    let found = matcher(r"abc\w+x|lit");
    assert!(found.regex.is_some());
    assert_eq!(found.judge(b"lit"), Verdict::Fits);
    assert_eq!(found.judge(b"abd1x"), Verdict::DoesNot);
    assert_eq!(found.judge(b"abcx"), Verdict::DoesNot);
    assert_eq!(found.judge(b"abc1x"), Verdict::Unclear);
    assert!(found.run(b"abc1x") && !found.run(b"abc-x"));
    assert_eq!(prefixes(r"abc\w+x|lit"), ["abc"]);
    // Folded case of a long name is cut off where it would grow too wide.
    let folded = matcher("(?i)errorsandwarnings");
    assert!(folded.globs.len() <= GLOBS_MAX && folded.globs.len() > 1);
    assert!(folded.matches(b"eRRorsAndWarnings") && !folded.matches(b"errors"));
}

#[test]
fn everything_and_everything_but_nothing() {
    for any in [
        ".*", "(.*)", ".*.*", ".+|", "|.+", ".*|a", "^.*$", "(?s:.*)", ".*a?.*",
    ] {
        let found = matcher(any);
        assert!(
            found.is_any() && !found.is_any_but_empty(),
            "{any}: {found:?}"
        );
    }
    for some in [".+", "(.+)", ".*.+", ".+.*", ".+|a", "^.+$"] {
        let found = matcher(some);
        assert!(
            !found.is_any() && found.is_any_but_empty(),
            "{some}: {found:?}"
        );
    }
    for neither in ["(?-s).*", ".", ".{2,}", "a.*", ".*a", "", "[^a]*"] {
        let found = matcher(neither);
        assert!(
            !found.is_any() && !found.is_any_but_empty(),
            "{neither}: {found:?}"
        );
    }
}

#[test]
fn values_that_are_no_utf8_are_read_as_go_does() {
    let found = matcher("a.{2}b|[^c]d");
    assert!(found.matches(b"a\xff\xfeb"));
    assert!(!found.matches(b"a\xffb"));
    assert!(found.matches(b"\xe2d") && !found.matches(b"\xe2\x82d"));
}

/// Patterns that would grow without bounds if they were multiplied out.
#[test]
fn growth_is_bounded() {
    let wide = "(a|b|c|d|e|f|g|h)".repeat(2000);
    let nested = format!("{}x{}", "(".repeat(60), "|y)?z{1,9}".repeat(60));
    let gaps = "a.".repeat(100_000);
    let folded = format!("(?i){}", "straße".repeat(500));
    let list: Vec<String> = (0..20_000).map(|n| format!("n{n}x.")).collect();
    let lists = format!("({}){}", list.join("|"), "(x|y).*".repeat(1000));
    for pattern in [wide, nested, gaps, folded, lists] {
        let parsed = Pattern::parse(pattern.as_bytes()).unwrap();
        let found = PatternMatcher::from_alternatives(expand(&parse(&parsed).unwrap()));
        assert!(found.globs.len() <= GLOBS_MAX);
    }
}

/// A piece of a pattern over a small alphabet, so that values fit now and then.
fn piece() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => "[abkK]{1,3}",
        1 => Just("é".to_owned()),
        2 => Just(".*".to_owned()),
        2 => Just(".+".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("[ab]".to_owned()),
        1 => Just("[^a]".to_owned()),
        1 => Just("[^a]*".to_owned()),
        1 => Just(r"\w".to_owned()),
        1 => Just(r"\b".to_owned()),
        1 => Just("^".to_owned()),
        1 => Just("$".to_owned()),
        1 => Just("(?i)".to_owned()),
        1 => Just("(?m)^".to_owned()),
        1 => Just("(?-s).".to_owned()),
        1 => Just(r"\n".to_owned()),
        1 => Just(String::new()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..5).prop_map(|p| p.concat()),
            3 => prop::collection::vec(inner.clone(), 1..5)
                .prop_map(|p| format!("({})", p.join("|"))),
            1 => inner.clone().prop_map(|p| format!("({p})?")),
            1 => inner.clone().prop_map(|p| format!("({p})*")),
            1 => inner.clone().prop_map(|p| format!("({p})+")),
            1 => (inner.clone(), 0_u32..6).prop_map(|(p, n)| format!("({p}){{{n}}}")),
            1 => (inner, 0_u32..6, 0_u32..3)
                .prop_map(|(p, n, more)| format!("({p}){{{n},{}}}", n + more)),
        ]
    })
}

fn values() -> impl Strategy<Value = Vec<String>> {
    let value = prop_oneof![
        4 => "[abkK]{0,6}",
        2 => "[abkKé\n\u{212a}]{0,8}",
        1 => "\\PC{0,4}",
    ];
    prop::collection::vec(value, 40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn shortcuts_say_what_the_expression_says(
        branches in prop::collection::vec(piece(), 1..4), values in values(),
    ) {
        let pattern = branches.join("|");
        let Ok(parsed) = Pattern::parse(pattern.as_bytes()) else { return Ok(()) };
        let Ok(regex) = parsed.compile() else { return Ok(()) };
        let matcher = PatternMatcher::new(&parsed).unwrap();
        let prefixes = matcher.prefixes();
        let known = matcher.literals().map(|l| String::from_utf8(l.to_vec()).unwrap());
        for value in values.into_iter().chain(known) {
            let expected = regex.is_match(&value);
            prop_assert_eq!(
                matcher.matches(value.as_bytes()), expected, "{:?} {:?} {:?}",
                pattern, value, matcher
            );
            let is_reached = matcher.is_literal(value.as_bytes())
                || prefixes.iter().any(|prefix| value.as_bytes().starts_with(prefix));
            prop_assert!(is_reached || !expected, "{:?} {:?}", pattern, value);
            if !value.is_empty() {
                prop_assert!(expected || !matcher.is_any_but_empty(), "{:?}", pattern);
            }
            prop_assert!(expected || !matcher.is_any(), "{:?}", pattern);
        }
        prop_assert_eq!(matcher.matches(b""), regex.is_match(""));
    }
}
