//! Patterns that Go reads otherwise than the regex crate, one by one.

use proptest::prelude::*;

use super::*;

fn compiled(pattern: &str) -> AnchoredRegex {
    let parsed = Pattern::parse(pattern.as_bytes());
    let parsed = parsed.unwrap_or_else(|error| panic!("{pattern:?}: {error}"));
    let regex = parsed.compile();
    regex.unwrap_or_else(|error| panic!("{pattern:?} as {:?}: {error}", parsed.rust))
}

/// A pattern, values that fit and values that do not.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

fn check(cases: &[Case]) {
    for (pattern, fits, does_not) in cases {
        let regex = compiled(pattern);
        for value in *fits {
            assert!(regex.is_match(value), "{pattern:?} should fit {value:?}");
        }
        for value in *does_not {
            assert!(
                !regex.is_match(value),
                "{pattern:?} should not fit {value:?}"
            );
        }
    }
}

#[test]
fn anchored_at_both_ends_and_dot_is_any_character() {
    check(&[
        ("a", &["a"], &["", "ab", "ba", "a\n"]),
        ("", &[""], &["a"]),
        ("a|bc", &["a", "bc"], &["ac", "abc"]),
        ("a||b", &["a", "", "b"], &["ab"]),
        (".*", &["", "a\nb", "héé"], &[]),
        (".", &["\n", "é"], &["", "ab"]),
        ("(?-s).", &["a"], &["\n"]),
        ("(?-s:.).", &["a\n"], &["\na"]),
        ("^a$", &["a"], &["a\n", "\na"]),
        ("(?m)a$\n^b", &["a\nb"], &["ab"]),
        ("a$\n^b", &[], &["a\nb"]),
        (r"\Aa\z", &["a"], &["a\n"]),
        ("^*a", &["a"], &["^a"]),
        ("()*a", &["a"], &["()a"]),
        ("(|a)b", &["b", "ab"], &["a"]),
    ]);
}

#[test]
fn perl_classes_are_ascii_and_the_vertical_tab_is_no_space() {
    check(&[
        (r"\d", &["1"], &["٣", "a"]),
        (r"\D", &["٣", "a"], &["1"]),
        (r"\w", &["a", "_", "0"], &["é"]),
        (r"\W", &["é", "-"], &["a"]),
        (r"\s", &[" ", "\t", "\x0C"], &["\x0B", "\u{a0}"]),
        (r"[\s]", &[" "], &["\x0B", "\u{a0}"]),
        (r"[\S]", &["\x0B"], &[" "]),
        (r"[^\d]", &["٣"], &["1"]),
        (r"[^\Da]", &["1"], &["a", "b"]),
        (r"a\b.*", &["a", "aé"], &["ab"]),
        (r"a\B.*", &["ab"], &["a", "aé"]),
        (r"(?i)\w", &["\u{17f}", "\u{212a}", "Q"], &["é"]),
        (r"[[:space:]]", &["\x0B", " "], &["\u{a0}"]),
        (r"[[:^alpha:]]", &["1", "é"], &["a"]),
        (r"[[:word:]]+", &["a_1"], &["é"]),
    ]);
}

#[test]
fn quotes_and_escapes() {
    check(&[
        (r"\Qa.b\E.", &["a.bc"], &["axbc"]),
        (r"\Qa*", &["a*"], &["a", "aa"]),
        (r"\Qab\E*", &["a", "abb"], &["abab"]),
        (r"\Q\E", &[""], &["a"]),
        (r"\Qa\\E", &[r"a\"], &["a"]),
        (r"a*\Q\E*", &["", "aa"], &["b"]),
        (r"\x41\x{1F600}", &["A😀"], &[]),
        (r"\101\07\0", &["A\u{7}\u{0}"], &[]),
        (r"\a\f\n\r\t\v", &["\u{7}\u{c}\n\r\t\u{b}"], &[]),
        (r"\.\_\-\/\#\ ", &["._-/# "], &[]),
        (r"[\x{D800}]", &[], &["\u{FFFD}", "a"]),
        (r"[^\x{D800}]", &["a", "\u{FFFD}"], &[]),
        (
            r"[\x{D000}-\x{E001}]",
            &["\u{D7FF}", "\u{E000}"],
            &["\u{E002}"],
        ),
        (r"\x{DFFF}?a", &["a"], &["b"]),
        ("# x", &["# x"], &["", "x"]),
    ]);
}

#[test]
fn set_operators_brackets_and_braces_are_plain() {
    check(&[
        ("[a&&b]", &["a", "&", "b"], &["&&", "c"]),
        ("[a~~b]", &["a", "~"], &["c"]),
        ("[!--]", &["!", "-", ","], &["."]),
        ("[[a]", &["[", "a"], &["]"]),
        ("[a[b]c]", &["ac]", "[c]", "bc]"], &["a", "c"]),
        ("[]a]", &["]", "a"], &["b"]),
        ("[^]a]", &["b"], &["]", "a"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[-a]", &["a", "-"], &["b"]),
        (r"[a\]b]", &["]"], &["\\"]),
        ("[[:alpha]", &["[", ":", "a", "h"], &["b"]),
        ("[.*+]", &[".", "*", "+"], &["a"]),
        ("a{", &["a{"], &["a"]),
        ("a{}", &["a{}"], &["a"]),
        ("a{,2}", &["a{,2}"], &["", "a", "aa"]),
        ("a{x}", &["a{x}"], &["a"]),
        ("a{01}", &["a{01}"], &["a"]),
        ("{a}", &["{a}"], &["a"]),
        ("a}", &["a}"], &["a"]),
        ("]", &["]"], &[]),
    ]);
}

#[test]
fn repetitions() {
    check(&[
        ("a{2}", &["aa"], &["a", "aaa"]),
        ("a{2,}", &["aa", "aaa"], &["a"]),
        ("a{1,2}", &["a", "aa"], &["", "aaa"]),
        ("x{0}", &[""], &["x"]),
        ("a*?b+?c??", &["b", "aabbc"], &["a"]),
        ("(?U)a+", &["a", "aa"], &[""]),
        ("(a*)*", &["", "aa"], &["b"]),
        ("(?:ab){2}?", &["abab"], &["ab"]),
        ("a{2}|b{3}", &["aa", "bbb"], &["aab"]),
        // A group that only sets flags is no expression.
        ("ab(?i)*", &["a", "abb"], &["ABB"]),
        ("a*(?i)*B", &["b", "aab"], &["AB"]),
    ]);
    compiled("(a{10}){100}");
    compiled("a{1000}");
    // An upper bound of 0 hides what is below.
    compiled("((a{1000}){0}){1000}");
}

#[test]
fn flags_and_groups() {
    check(&[
        ("(?i)abc", &["ABC", "abc"], &[]),
        ("a(?i)b|c", &["aB", "C"], &["A", "AB"]),
        ("(?i:a)b", &["Ab"], &["aB"]),
        ("((?i)a)b", &["Ab"], &["AB"]),
        ("(?i)a(?-i)b", &["Ab"], &["AB"]),
        ("(?i-i)a", &["a"], &["A"]),
        ("(?)a", &["a"], &[]),
        ("(?:a|b)c", &["ac", "bc"], &["a"]),
        ("(?P<a>x)(?P<a>y)", &["xy"], &["x"]),
        ("(?<n>x)", &["x"], &[]),
        ("(?i)[k]", &["K", "\u{212a}"], &["l"]),
        (r"\pL\p{Greek}\PL\p{^Greek}", &["aα1b"], &["αaa1"]),
        (r"[\pL\d]+", &["é1"], &["-"]),
    ]);
}

#[test]
fn refused_as_in_go() {
    for (pattern, what) in [
        ("(", "missing closing )"),
        ("a)", "unexpected )"),
        ("a)(b", "unexpected )"),
        ("[a", "missing closing ]"),
        ("[]", "missing closing ]"),
        ("a**", "invalid nested repetition operator"),
        ("a+*", "invalid nested repetition operator"),
        ("a{2}{3}", "invalid nested repetition operator"),
        ("a*??", "invalid nested repetition operator"),
        ("*", "missing argument to repetition operator"),
        ("a|*", "missing argument to repetition operator"),
        ("(+)", "missing argument to repetition operator"),
        ("(?i)*", "missing argument to repetition operator"),
        ("{2}", "missing argument to repetition operator"),
        ("x{1001}", "invalid repeat count"),
        ("x{2,1}", "invalid repeat count"),
        ("x{99999999999}", "invalid repeat count"),
        ("(x{100}){11}", "invalid repeat count"),
        ("((x{10}){10}y){11}", "invalid repeat count"),
        (r"\C", "invalid escape sequence"),
        (r"\8", "invalid escape sequence"),
        (r"\1", "invalid escape sequence"),
        (r"\q", "invalid escape sequence"),
        (r"\é", "invalid escape sequence"),
        (r"\x{110000}", "invalid escape sequence"),
        (r"\x{}", "invalid escape sequence"),
        (r"\xg1", "invalid escape sequence"),
        (r"[\b]", "invalid escape sequence"),
        (r"\", "trailing backslash at end of expression"),
        ("[b-a]", "invalid character class range"),
        ("[[:foo:]]", "invalid character class range"),
        (r"\p{NoSuchScript}", "invalid character class range"),
        (r"\p", "invalid character class range"),
        (r"\p{Greek", "invalid character class range"),
        ("(?x)", "invalid or unsupported Perl syntax"),
        ("(?i", "invalid or unsupported Perl syntax"),
        ("(?i-)a", "invalid or unsupported Perl syntax"),
        ("(?=a)", "invalid or unsupported Perl syntax"),
        ("(?P=a)", "invalid or unsupported Perl syntax"),
        ("(?P<>a)", "invalid named capture"),
        ("(?P<a", "invalid named capture"),
        ("(?<=a)", "invalid named capture"),
    ] {
        match Pattern::parse(pattern.as_bytes()) {
            Ok(parsed) => panic!("{pattern:?} was taken as {:?}", parsed.rust),
            Err(error) => assert_eq!(error.what, what, "{pattern:?}"),
        }
    }
    let error = Pattern::parse(b"ab**").unwrap_err();
    assert_eq!(
        error.to_string(),
        "error parsing regexp: invalid nested repetition operator: `**`"
    );
}

#[test]
fn bytes_that_are_not_utf8_count_as_the_replacement_character() {
    let regex = Pattern::parse(b"a\xff+").unwrap().compile().unwrap();
    assert!(regex.is_match("a\u{FFFD}\u{FFFD}"));
    assert!(!regex.is_match("a"));
}

#[test]
fn nesting_length_and_program_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Pattern::parse(nested(999).as_bytes()).is_ok());
    for depth in [1001, 100_000] {
        let error = Pattern::parse(nested(depth).as_bytes()).unwrap_err();
        assert_eq!(error.what, "expression nests too deeply");
        let starred = format!("{}a{}", "(".repeat(depth), ")*".repeat(depth));
        assert!(Pattern::parse(starred.as_bytes()).is_err());
    }
    // Accepted by Go; only Prometheus has to run it unless it is for an external label.
    assert!(
        Pattern::parse(nested(900).as_bytes())
            .unwrap()
            .compile()
            .is_err()
    );

    let long = "a|".repeat(PATTERN_BYTES_MAX / 2);
    let error = Pattern::parse(long.as_bytes()).map(|p| p.compile());
    assert!(matches!(error, Ok(Err(_))), "the program is too large");
    let error = Pattern::parse(format!("{long}aa").as_bytes()).unwrap_err();
    assert_eq!(error.what, "expression too large");
    assert!(error.fragment.len() < 200);

    let error = Pattern::parse(br"\pL{1000}")
        .unwrap()
        .compile()
        .unwrap_err();
    assert_eq!(error.what, "expression too large");
    let stacked = "a*".to_owned() + &r"\Q\E*".repeat(2000);
    let error = Pattern::parse(stacked.as_bytes()).unwrap_err();
    assert_eq!(error.what, "expression nests too deeply");
}

/// A parser that has read a pattern, and whether it took it.
fn read(pattern: &str) -> (Parser<'_>, bool) {
    assert!(pattern.len() <= PATTERN_BYTES_MAX);
    let mut parser = Parser::new(pattern);
    let taken = parser.run().is_ok();
    (parser, taken)
}

#[test]
fn classes_are_read_in_time_in_proportion_to_the_pattern() {
    let count = PATTERN_BYTES_MAX / 4;
    // Openings that are never closed, before and behind one that is.
    let open = "[:".repeat(count);
    let (parser, taken) = read(&open);
    assert!(!taken && parser.classes.searched == 0);
    let closed = format!("[[:alpha:]{open}x]");
    let (parser, taken) = read(&closed);
    assert!(taken && parser.classes.searched <= closed.len());
    let many = "[[:alpha:]]".repeat(PATTERN_BYTES_MAX / 11);
    let (parser, taken) = read(&many);
    assert!(taken && parser.classes.searched <= many.len());

    let names = r"\pL\PN\p{Greek}\P{G_reek}[\p{^greek}]".repeat(PATTERN_BYTES_MAX / 40);
    let (parser, taken) = read(&names);
    assert!(taken);
    assert_eq!(parser.classes.lookups, 3);
    let spread: String = (0..2000)
        .map(|at| format!(r"\p{{{}Greek}}", "_".repeat(at % 100)))
        .collect();
    assert_eq!(read(&spread).0.classes.lookups, 1);
}

#[test]
fn groups_and_repetitions_only_append() {
    // What is written grows with the pattern: nothing is written twice.
    let depth = 900;
    let inner = "a".repeat(PATTERN_BYTES_MAX - 2 * depth);
    let nested = format!("{}{inner}{}", "(".repeat(depth), ")".repeat(depth));
    let (parser, taken) = read(&nested);
    assert!(taken && parser.insertions.is_empty());
    // Atoms that are repeated again, with flags behind them or not.
    for (pattern, expected) in [
        (r"a*\Q\E{2}", "(?:a*){2,2}"),
        (r"(b|a)*\Q\E?\Q\E{2}c", "(?:(?:(?:b|a)*)?){2,2}c"),
        ("a(?i)*(?s)+b", "(?:a*)+(?is-m)(?is-m)b"),
        ("(x(?m){2}(?m)*)+", "(?:(?:x{2,2})*(?ms-i)(?ms-i))+"),
    ] {
        let rust = Pattern::parse(pattern.as_bytes()).unwrap().rust;
        assert_eq!(rust, expected, "{pattern:?}");
        compiled(pattern);
    }
}

proptest! {
    /// What is accepted compiles: the translation never writes what the crate can't read.
    #[test]
    fn accepted_patterns_compile(
        pattern in r"[ab0-9()\[\]{}*+?|.^$\\QEdwsbBpPLxi:=,&~é<>-]{0,24}",
    ) {
        if let Ok(parsed) = Pattern::parse(pattern.as_bytes())
            && let Err(error) = parsed.compile()
        {
            prop_assert_eq!(error.what, "expression too large", "{:?} {:?}", pattern, parsed.rust);
        }
    }

    /// Any text, quoted, fits itself and nothing else.
    #[test]
    fn quoted_text_is_literal(text in r"[^\\]{0,20}", other in r"\PC{0,20}") {
        let regex = compiled(&format!(r"\Q{text}\E"));
        prop_assert!(regex.is_match(&text));
        prop_assert_eq!(regex.is_match(&other), text == other);
    }
}
