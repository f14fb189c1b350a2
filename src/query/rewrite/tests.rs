//! What expressions become.

use proptest::prelude::*;

use super::*;

fn external(value: &str) -> Overlaid {
    Overlaid {
        external: Some(value.to_owned()),
        is_shown: true,
        is_stored: false,
    }
}

/// `cluster="eu1"`, `replica="a"`.
fn overlay() -> LabelOverlay {
    let labels = [("cluster", external("eu1")), ("replica", external("a"))];
    LabelOverlay(labels.map(|(n, l)| (n.to_owned(), l)).into())
}

/// The same, `replica` dropped from results.
fn deduplicated() -> LabelOverlay {
    let mut overlay = overlay();
    overlay.0.get_mut("replica").unwrap().is_shown = false;
    overlay
}

/// The same, with series that have a label `cluster` of their own.
fn stored() -> LabelOverlay {
    let mut overlay = deduplicated();
    overlay.0.get_mut("cluster").unwrap().is_stored = true;
    overlay
}

/// The query and the names of the labels to add.
fn shown(query: &str, overlay: &LabelOverlay) -> String {
    match rewrite(query, overlay) {
        Ok(rewritten) => {
            let added: Vec<_> = rewritten.added.iter().map(|(name, _)| &**name).collect();
            format!("{} +{}", rewritten.query, added.join("+"))
        }
        Err(error) => format!("{error}"),
    }
}

/// Cases are pairs of lines: a query, and behind `=>` what it becomes. There `C<x>C` is `x` with
/// the label `cluster` put in, `R<x>R` with `replica`; `…` is anything.
fn expect(overlay: &LabelOverlay, cases: &str) {
    let put_in = |text: &str| {
        let mut text = text.to_owned();
        for (open, close, label) in [
            ("C<", ">C", "\"cluster\", \"eu1\""),
            ("R<", ">R", "\"replica\", \"a\""),
        ] {
            text = text.replace(open, "label_replace(");
            text = text.replace(close, &format!(", {label}, \"\", \"\")"));
        }
        text
    };
    let lines: Vec<&str> = cases
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    assert!(
        lines.len() >= 2 && lines.len().is_multiple_of(2),
        "pairs of lines"
    );
    for pair in lines.chunks(2) {
        let expected = put_in(pair[1].strip_prefix("=> ").expect("an arrow"));
        let got = shown(pair[0], overlay);
        match expected.strip_suffix('…') {
            Some(start) => assert!(got.starts_with(start), "{}: {got}", pair[0]),
            None => assert_eq!(got, expected, "{}", pair[0]),
        }
    }
}

#[test]
fn matchers_on_external_labels_are_decided_and_taken_out() {
    expect(
        &overlay(),
        r#"
        up
          => up +cluster+replica
        up{cluster="eu1"}
          => up +cluster+replica
        up{cluster=~"eu.*", job!="a" , replica!="b"}
          => up{job!="a"} +cluster+replica
        {cluster="eu1"}
          => {__name__!=""} +cluster+replica
        {cluster="eu1",job=~".*"}
          => {job=~".*",__name__!=""} +cluster+replica
        {cluster="eu1",job=~".+"}
          => {job=~".+"} +cluster+replica
        up{cluster="us",job="a"}
          => {__name__="up",__name__="",job="a"} +
        {"my.metric",cluster!="eu1"}
          => {__name__="none",__name__="",__name__="my.metric"} +
        up{cluster="us"}[5m] offset 1m
          => {__name__="up",__name__=""}[5m] offset 1m +
        rate(up{cluster="eu1"}[5m:1m] @ end() offset -1m)
          => rate(up[5m:1m] @ end() offset -1m) +cluster+replica
        up{cluster="eu1",}
          => up +cluster+replica
        up{"cluster"="eu1"}
          => up +cluster+replica
        "#,
    );
}

#[test]
fn labels_that_nothing_looks_at_are_added_to_the_result() {
    expect(
        &overlay(),
        r#"
        sum(up)
          => sum(up) +
        sum by (job) (up)
          => sum by (job) (up) +
        sum by (job, cluster) (up)
          => sum by (job, cluster) (up) +cluster
        sum(up) by (cluster)
          => sum(up) by (cluster) +cluster
        sum without (replica) (up)
          => sum without (replica) (up) +cluster
        topk by (replica) (3, up)
          => topk by (replica) (3, up) +cluster+replica
        quantile(0.9, up)
          => quantile(0.9, up) +
        - up
          => - up +cluster+replica
        +up + + 1
          => +up + + 1 +cluster+replica
        -1 ^ 2 * up
          => -1 ^ 2 * up +cluster+replica
        time() - up
          => time() - up +cluster+replica
        1 + 2
          => 1 + 2 +
        "x"
          => "x" +
        vector(1)
          => vector(1) +
        scalar(up)
          => scalar(up) +
        hour()
          => hour() +
        hour(up)
          => hour(up) +cluster+replica
        timestamp(up)
          => timestamp(up) +cluster+replica
        sort_desc(up)
          => sort_desc(up) +cluster+replica
        count_values("v", up)
          => count_values("v", up) +
        count_values without () ("cluster", up)
          => count_values without () ("cluster", up) +replica
        rate(up[5m])
          => rate(up[5m]) +cluster+replica
        up[5m]
          => up[5m] +cluster+replica
        max_over_time(sum by (cluster) (up)[1h:])
          => max_over_time(sum by (cluster) (up)[1h:]) +cluster
        histogram_quantile(0.9, sum by (le, cluster) (b))
          => histogram_quantile(0.9, sum by (le, cluster) (b)) +cluster
        "#,
    );
}

#[test]
fn comments_stay() {
    let query = "# a comment\nup # another";
    assert_eq!(
        shown(query, &overlay()),
        format!("{query} +cluster+replica")
    );
}

#[test]
fn what_only_prometheus_reads_stays_as_it_is() {
    expect(
        &overlay(),
        r##"
        up{job=~`a\d+"'`, cluster=`eu1`}
          => up{job=~`a\d+"'`} +cluster+replica
        up{cluster=~`e\w1`} or vector(1)
          => R<C<up>C>R or vector(1) +
        label_replace(up, `x`, `$1`, `job`, `(\w)`)
          => label_replace(up, `x`, `$1`, `job`, `(\w)`) +cluster+replica
        label_join(up, `x`, `#`, `cluster`)
          => label_join(C<up>C, `x`, `#`, `cluster`) +replica
        rate(up[5m * 2 + step()]) / sum(b)
          => R<C<rate(up[5m * 2 + step()])>C>R / sum(b) +
        max_over_time(up[(1h):(5m)])
          => max_over_time(up[(1h):(5m)]) +cluster+replica
        max_over_time(up[1h * 2 :]) or vector(1)
          => R<C<max_over_time(up[1h * 2 :])>C>R or vector(1) +
        up offset (5m * (1 + 2)) or vector(1)
          => R<C<up offset (5m * (1 + 2))>C>R or vector(1) +
        up offset -step() or vector(1)
          => R<C<up offset -step()>C>R or vector(1) +
        up offset max_of(step(), 5m) @ end() or vector(1)
          => R<C<up offset max_of(step(), 5m) @ end()>C>R or vector(1) +
        rate(up{cluster="eu1"}[5m] anchored) or vector(1)
          => R<C<rate(up[5m] anchored)>C>R or vector(1) +
        up smoothed or vector(1)
          => R<C<up smoothed>C>R or vector(1) +
        up offset 5m smoothed or vector(1)
          => R<C<up offset 5m smoothed>C>R or vector(1) +
        "ü" + "#`[" + 'it\'s [` #'
          => binary expression must contain only…
        label_replace(up, "ü", "`[#", "", "") or vector(1)
          => R<C<label_replace(up, "ü", "`[#", "", "")>C>R or vector(1) +
        up{job="\"`"} # `a [
          => up{job="\"`"} # `a [ +cluster+replica
        "##,
    );
    expect(
        &stored(),
        r#"
        up smoothed > 1
          => C<up smoothed>C > 1 +
        "#,
    );
}

#[test]
fn patterns_are_gos_and_may_be_long() {
    expect(
        &overlay(),
        r##"
        up{job=~"\\pN\\Qa.b\\E(?U)x*"}
          => up{job=~"\\pN\\Qa.b\\E(?U)x*"} +cluster+replica
        up{cluster=~"\\Qeu\\E\\pN", job =~ `.*`}
          => up{job =~ `.*`} +cluster+replica
        {cluster=~"eu1|us1",job=~`.*`}
          => {job=~`.*`,__name__!=""} +cluster+replica
        {cluster!~""}
          => {__name__!=""} +cluster+replica
        {job!~""}
          => {job!~""} +cluster+replica
        up{cluster!~"eu1|us1"}
          => {__name__="up",__name__=""} +
        up{cluster=~"eu("}
          => error parsing regexp…
        "##,
    );
    let names: Vec<String> = (0..20_000).map(|n| format!("instance-{n}")).collect();
    let query = format!("a{{instance=~\"{}\"}}", names.join("|"));
    assert_eq!(rewrite(&query, &overlay()).unwrap().query, query);
}

#[test]
fn selectors_that_prometheus_refuses_are_refused() {
    for text in [
        "{cluster=~\".*\"}",
        "{cluster!~\"us\",job=~\".*\"}",
        "{cluster=~\"eu.*|\"}",
    ] {
        let refused = rewrite(text, &overlay());
        assert!(
            matches!(refused, Err(RewriteError::Syntax(_))),
            "{text} {refused:?}"
        );
        let refused = rewrite_selector(text, &overlay());
        assert!(
            matches!(refused, Err(RewriteError::Syntax(_))),
            "{text} {refused:?}"
        );
    }
}

#[test]
fn strings_are_read_as_go_does() {
    let overlay = LabelOverlay([("z".to_owned(), external("ä"))].into());
    assert_eq!(shown("up{z=\"\\xc3\\xa4\"}", &overlay), "up +z");
    assert_eq!(shown("up{z=~\"\\303\\244|b\"}", &overlay), "up +z");
    let made = r#"label_replace(up, "\x7a", "b", "", "")"#;
    let put_in = r#"label_replace(up, "z", "ä", "", "")"#;
    let expected = format!("{} +", made.replace("up", put_in));
    assert_eq!(shown(made, &overlay), expected);
    for odd in ["a{b=~\"\\ä\"}", "a{b=~\"\\xä\"}", "a{b=\"\\ä\"}"] {
        assert!(
            matches!(rewrite(odd, &overlay), Err(RewriteError::Syntax(_))),
            "{odd}"
        );
    }
    let refused = shown("a{b=\"\\xff\"}", &overlay);
    assert_eq!(refused, "unsupported string that is not UTF-8");
}

#[test]
fn what_is_long_is_refused() {
    let patterns = vec!["cluster=~\"e.*\""; 21].join(",");
    let many = format!("up{{{patterns}}}");
    assert!(shown(&many, &overlay()).contains("more than 20 patterns"));
    let commas = format!("sum by ({}) (up)", vec!["a"; 60_000].join(","));
    assert!(shown(&commas, &overlay()).contains("more than 100000 words"));
    let long = format!("up{{a=\"{}\"}}", "x".repeat(QUERY_BYTES_MAX));
    assert!(shown(&long, &overlay()).contains("longer than"));
    let value = "v".repeat(10_000);
    let wide = LabelOverlay([("z".to_owned(), external(&value))].into());
    let wraps = vec!["a"; 1_000].join(" + vector(1) + ");
    assert!(shown(&wraps, &wide).contains("too many labels"));
}

#[test]
fn selectors_are_read() {
    let read = selector_matchers("up{job=~`a\\d`,\"x y\"!=\"\"}").unwrap();
    let read: Vec<String> = read.iter().map(ToString::to_string).collect();
    assert_eq!(
        read,
        ["__name__=\"up\"", "job=~\"a\\\\d\"", "\"x y\"!=\"\""]
    );
    for deep in ["(", "-", "abs("] {
        assert!(selector_matchers(&deep.repeat(60_000)).is_err());
    }
}

#[test]
fn samples_that_are_filled_in_get_what_they_should_have() {
    expect(
        &overlay(),
        r#"
        a + fill(1) b
          => R<C<a>C>R + fill(1) R<C<b>C>R +
        a + fill_left(1) fill_right(2) b{cluster="us"}
          => R<C<a>C>R + fill_left(1) fill_right(2) {__name__="b",__name__=""} +
        a{cluster="us"} + fill(1) b{cluster="us"}
          => {__name__="a",__name__=""} + fill(1) {__name__="b",__name__=""} +
        "#,
    );
}

#[test]
fn both_sides_of_a_match_have_a_label_or_get_it() {
    expect(
        &overlay(),
        r#"
        a + b
          => a + b +cluster+replica
        a / on (job) b
          => a / on (job) b +
        a / on (job, cluster) b
          => a / on (job, cluster) b +cluster
        a / ignoring (cluster) b
          => a / ignoring (cluster) b +replica
        a * on (job) group_left (x) b
          => a * on (job) group_left (x) b +cluster+replica
        a * on (job) group_right (cluster) b
          => a * on (job) group_right (cluster) b +cluster+replica
        sum by (job) (a) * on (job) group_left (cluster) b
          => sum by (job) (a) * on (job) group_left (cluster) b +cluster
        a * on (job) group_left (cluster) sum by (job) (b)
          => a * on (job) group_left (cluster) sum by (job) (b) +replica
        a / sum(b)
          => R<C<a>C>R / sum(b) +
        a / ignoring (cluster, replica, job) sum(b)
          => a / ignoring (cluster, replica, job) sum(b) +
        a and sum by (cluster) (b)
          => R<a>R and sum by (cluster) (b) +cluster
        a and on () b
          => a and on () b +cluster+replica
        a and on () vector(1)
          => a and on () vector(1) +cluster+replica
        vector(1) and on () a
          => vector(1) and on () a +
        a or vector(0)
          => R<C<a>C>R or vector(0) +
        a or on () vector(0)
          => R<C<a>C>R or on () vector(0) +
        a unless b
          => a unless b +cluster+replica
        a unless on (job) sum by (job) (b)
          => a unless on (job) sum by (job) (b) +cluster+replica
        (a > bool 1) == on (cluster) group_left c
          => (a > bool 1) == on (cluster) group_left c +cluster+replica
        a or b{cluster="us"}
          => a or {__name__="b",__name__=""} +cluster+replica
        b{cluster="us"} or a
          => {__name__="b",__name__=""} or a +cluster+replica
        a unless b{cluster="us"}
          => a unless {__name__="b",__name__=""} +cluster+replica
        sum(b{cluster="us"}) or a
          => sum({__name__="b",__name__=""}) or a +cluster+replica
        "#,
    );
}

#[test]
fn labels_that_a_function_looks_at_are_put_in() {
    expect(
        &overlay(),
        r#"
        label_replace(up, "x", "$1", "cluster", "(.*)")
          => label_replace(C<up>C, "x", "$1", "cluster", "(.*)") +replica
        label_replace(up, "cluster", "x", "job", "(.*)")
          => label_replace(C<up>C, "cluster", "x", "job", "(.*)") +replica
        label_join(up, "x", "-", "job", "replica")
          => label_join(R<up>R, "x", "-", "job", "replica") +cluster
        sort_by_label(up, "job")
          => sort_by_label(R<C<up>C>R, "job") +
        limit_ratio(0.5, up)
          => limit_ratio(0.5, R<C<up>C>R) +
        absent(up{cluster="eu1",job="a"})
          => C<absent(up{job="a"})>C +
        absent(up{cluster="eu1",cluster=~"eu."})
          => absent(up) +
        absent(up{cluster=~"eu1"})
          => absent(up) +
        absent((up{cluster="us",job="a"}))
          => label_replace(absent(({__name__="up",__name__="",job="a"})), "cluster", "us", "", "") +
        absent_over_time(up{replica="a"}[5m])
          => R<absent_over_time(up[5m])>R +
        absent(sum(up{cluster="eu1"}))
          => absent(sum(up)) +
        info(up)
          => info(up) +cluster+replica
        info(sum by (job, instance) (up))
          => unsupported info() of series without the external label cluster, …
        info(sum by (job, instance) (up), {__name__="x_info"})
          => unsupported info() of series without the external label cluster, …
        info(sum by (job, instance) (up), {version=~".+"})
          => info(sum by (job, instance) (up), {version=~".+"}) +
        absent(up{cluster!="x",cluster="eu1"})
          => unsupported absent() with another matcher on cluster …
        info(up, {cluster="eu1"})
          => unsupported info() with a matcher on cluster, …
        "#,
    );
}

#[test]
fn replica_labels_are_matched_and_dropped() {
    expect(
        &deduplicated(),
        r#"
        up{replica="a"}
          => up +cluster
        up{replica="b"}
          => {__name__="up",__name__=""} +
        sum by (replica, cluster) (up)
          => sum by (replica, cluster) (up) +cluster
        absent(up{replica="a"})
          => absent(up) +
        a / on (replica) sum(b)
          => a / on (replica) sum(b) +
        "#,
    );
}

#[test]
fn labels_that_stored_series_have_themselves_are_replaced_at_once() {
    expect(
        &stored(),
        r#"
        up
          => C<up>C +
        sum by (job) (up)
          => sum by (job) (C<up>C) +
        rate(up[5m])
          => C<rate(up[5m])>C +
        timestamp(up)
          => C<timestamp(up)>C +
        absent(up)
          => absent(up) +
        a + (b)
          => C<a>C + C<(b)>C +
        -up
          => -C<up>C +
        up[5m]
          => unsupported range selector as the whole query, …
        max_over_time(up[1h:5m])
          => max_over_time(C<up>C[1h:5m]) +
        "#,
    );
    let mut overlay = deduplicated();
    overlay.0.get_mut("replica").unwrap().is_stored = true;
    let dropped = "label_replace(up, \"replica\", \"\", \"\", \"\") +cluster";
    assert_eq!(shown("up", &overlay), dropped);
}

#[test]
fn values_are_put_in_as_they_are() {
    let odd = "a\"b\\c$1\n";
    let overlay = LabelOverlay([("z".to_owned(), external(odd))].into());
    let expected = "label_replace(a, \"z\", \"a\\\"b\\\\c$$1\\n\", \"\", \"\") or vector(1) +";
    assert_eq!(shown("a or vector(1)", &overlay), expected);
}

#[test]
fn selectors_of_lists_are_decided() {
    let rewritten = |selector: &str| rewrite_selector(selector, &overlay());
    assert_eq!(rewritten("up").unwrap().unwrap(), "up");
    assert_eq!(rewritten("up{cluster=\"eu1\"}").unwrap().unwrap(), "up");
    assert_eq!(rewritten("{cluster=\"us\"}").unwrap(), None);
    for wrong in [
        "rate(up[5m])",
        "up[5m]",
        "up offset 5m",
        "up @ 1",
        "up{",
        "1",
    ] {
        assert!(
            matches!(rewritten(wrong), Err(RewriteError::Syntax(_))),
            "{wrong}"
        );
    }
}

#[test]
fn places_in_messages_are_those_of_the_users_text() {
    let query =
        "sum(b) or\n  label_replace(rate(up{cluster=\"eu1\"}[5m]), \"x\", \"\", \"cluster\", \"\")";
    let rewritten = rewrite(query, &overlay()).unwrap();
    let place = |text: &str, needle: &str| {
        let (line, column) = line_and_column(text, text.find(needle).unwrap());
        format!("something (of sorts) ({line}:{column})")
    };
    for needle in ["sum", "b)", "up", "\"x\"", "rate(", "[5m]"] {
        let told = rewritten.in_users_terms(&place(&rewritten.query, needle));
        assert_eq!(told, place(query, needle), "{needle}");
    }
    for message in ["no place", "place (1:x)", "place (9:9)", "(1:1)", ""] {
        let told = rewritten.in_users_terms(message);
        assert!(told == message || message == "place (9:9)", "{told}");
    }
}

#[test]
fn depth_has_a_limit_and_does_not_overflow() {
    let deep = |n: usize| format!("{}up{}", "(".repeat(n), ")".repeat(n));
    let sums = |n: usize| vec!["up"; n + 1].join(" + ");
    let negated = |n: usize| format!("{}up", "-".repeat(n));
    let calls = |n: usize| format!("{}up{}", "abs(".repeat(n), ")".repeat(n));
    let mixed = |n: usize| vec!["up or vector(1)"; n + 1].join(" + ");
    for make in [&deep as &dyn Fn(usize) -> String, &sums, &negated, &calls] {
        assert!(rewrite(&make(NESTING_MAX), &overlay()).is_ok());
        let refused = rewrite(&make(NESTING_MAX + 1), &overlay()).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("unsupported expression: 4001"),
            "{refused}"
        );
        assert!(rewrite(&make(500_000), &overlay()).is_err());
        assert!(rewrite(&make(50_000), &overlay()).is_err());
    }
    assert!(rewrite(&mixed(NESTING_MAX / 4), &overlay()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Tokens in any order: an error or a query that parses, never a panic.
    #[test]
    fn any_tokens_are_an_error_or_a_query(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "sum", "(", ")", "{", "}", "[", "]", "5m", ":", ",", "by", "on", "cluster",
            "\"eu1\"", "=", "=~", "!=", "+", "-", "^", "or", "and", "offset", "@", "1", "start",
            "rate", "absent", "label_replace", "group_left", "bool", "==", "topk", "#", "\n",
        ]), 0..14),
    ) {
        let text = parts.join(" ");
        if let Ok(rewritten) = rewrite(&text, &overlay()) {
            prop_assert!(rewrite(&rewritten.query, &LabelOverlay::default()).is_ok(), "{text}");
        }
        if let Ok(same) = rewrite(&text, &LabelOverlay::default()) {
            prop_assert_eq!(same.query, text);
        }
    }
}
