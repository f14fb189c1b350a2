//! What the fuzz target of the rewriter runs, here so that a plain `cargo test` replays its corpus.

use std::collections::BTreeMap;

use super::{LabelOverlay, Overlaid, Rewritten, rewrite, rewrite_selector};

/// The input as an expression and as a selector: what is rewritten can be read, and where there is
/// nothing to rewrite, it stays as it is.
pub fn fuzz_rewrite(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let nothing = LabelOverlay::default();
    if let Ok(same) = rewrite(text, &nothing) {
        assert_eq!((same.query.as_str(), &same.added), (text, &Vec::new()));
    }
    for overlay in [overlay(false), overlay(true)] {
        if let Ok(rewritten) = rewrite(text, &overlay) {
            check(&rewritten, &overlay, &nothing);
        }
        if let Ok(Some(selector)) = rewrite_selector(text, &overlay) {
            let again = rewrite_selector(&selector, &nothing);
            assert_eq!(again.as_ref(), Ok(&Some(selector)));
        }
    }
}

fn check(rewritten: &Rewritten, overlay: &LabelOverlay, nothing: &LabelOverlay) {
    let again = rewrite(&rewritten.query, nothing);
    let again = again.unwrap_or_else(|error| panic!("{:?}: {error}", rewritten.query));
    assert_eq!(again.query, rewritten.query);
    let names = rewritten.added.iter().map(|(name, _)| name);
    assert!(names.is_sorted());
    for (name, value) in &rewritten.added {
        let shown = overlay.0.get(name).filter(|overlaid| overlaid.is_shown);
        let external = shown.and_then(|overlaid| overlaid.external.as_ref());
        assert_eq!(external, Some(value));
    }
    // Whatever place Prometheus names, and some that are none.
    let lines = rewritten.query.split('\n').count() + 1;
    for line in (0..=lines).take(5) {
        for column in [0, 1, 7, 80, rewritten.query.len()] {
            let message = format!("something ({line}:{column})");
            assert!(
                rewritten
                    .in_users_terms(&message)
                    .starts_with("something (")
            );
        }
    }
}

/// External labels with and without series that carry such a label themselves, and replica labels.
fn overlay(is_stored: bool) -> LabelOverlay {
    let overlaid = |external: Option<&str>, is_shown| Overlaid {
        external: external.map(str::to_owned),
        is_shown,
        is_stored,
    };
    LabelOverlay(BTreeMap::from([
        ("cluster".to_owned(), overlaid(Some("eu1"), true)),
        ("replica".to_owned(), overlaid(Some("a"), false)),
        ("rep2".to_owned(), overlaid(None, false)),
        (
            "zone".to_owned(),
            overlaid(Some("q\"uote $1 \\d ünï"), true),
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_fuzz_corpus_replays() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rewrite");
        let (mut seeds, mut rewritten) = (0, 0);
        for entry in std::fs::read_dir(corpus).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            fuzz_rewrite(&seed);
            seeds += 1;
            let text = String::from_utf8_lossy(&seed);
            rewritten += usize::from(rewrite(&text, &overlay(true)).is_ok());
        }
        assert!(
            seeds > 50 && rewritten * 2 > seeds,
            "{rewritten} of {seeds}"
        );
    }

    /// Cut and mangled seeds, which are often almost expressions.
    #[test]
    fn no_prefix_of_a_seed_is_fatal() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rewrite");
        for entry in std::fs::read_dir(corpus).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            for end in 0..seed.len().min(160) {
                fuzz_rewrite(&seed[..end]);
                fuzz_rewrite(&seed[end..]);
            }
        }
    }

    /// What is repeated up to a size that no expression has.
    const PARTS: &[&str] = &[
        "(",
        "{",
        "[",
        "-",
        "- ",
        "+",
        "abs(",
        "sum by (a) (",
        "a + ",
        "a ^ ",
        "a or ",
        "a unless on(",
        "1 - ",
        "\"",
        "`",
        "'",
        "\\",
        "#",
        "#\n",
        " ",
        "\0",
        "a",
        "9",
        "x[1m",
        "x[1m:1m]",
        "up[1m:",
        "a offset 1m ",
        "@",
        "a{b=\"c\"} * ",
        "{a=\"b\",",
        "a{b=~\"(\",",
        "sum(",
        ")",
        "}",
        "]",
        ",",
        "label_replace(",
        "a and (",
        "vector(",
        "ü",
        "a:",
        "0x",
        "1e",
        "inf ",
        "{__name__=\"a\",",
    ];

    /// Each has an answer, or an error.
    #[test]
    fn long_inputs_come_to_an_end() {
        const LENGTH: usize = 1 << 20;
        let overlay = overlay(false);
        for part in PARTS {
            let repeated = part.repeat(LENGTH / part.len());
            for text in [format!("{repeated}a"), format!("a{repeated}")] {
                let is_whole = rewrite(&text, &overlay).map(|found| {
                    let found = rewrite(&found.query, &LabelOverlay::default());
                    found.is_ok()
                });
                assert!(is_whole.unwrap_or(true), "{part}");
            }
        }
    }

    /// Deeper than any stack.
    #[test]
    fn deep_inputs_come_to_an_end() {
        let overlay = overlay(false);
        for (open, inner, close) in [
            ("(", "a", ")"),
            ("abs(", "a", ")"),
            ("-(", "a", ")"),
            ("sum by (cluster) (", "a", ")"),
            ("(a + ", "a", ")"),
            ("max_over_time((", "a", ")[5m:1m])"),
            ("label_replace(", "a", ",\"x\",\"\",\"cluster\",\"\")"),
        ] {
            for depth in [10, 100, 1_000, 3_000, 10_000, 100_000] {
                let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
                let found = rewrite(&text, &overlay);
                assert!(depth > 100 || found.is_ok(), "{open} {depth}: {found:?}");
                if let Ok(found) = found {
                    assert!(
                        rewrite(&found.query, &LabelOverlay::default()).is_ok(),
                        "{open}"
                    );
                }
            }
        }
    }

    /// Long, and not deep.
    #[test]
    fn a_long_list_is_rewritten() {
        let values: Vec<_> = (0..20_000).map(|n| format!("instance-{n}")).collect();
        let text = format!("a{{cluster=\"eu1\",instance=~\"{}\"}}", values.join("|"));
        assert!(text.len() > 256 << 10);
        let found = rewrite(&text, &overlay(false)).unwrap();
        assert!(!found.query.contains("cluster") && found.query.contains("instance-19999"));
    }
}
