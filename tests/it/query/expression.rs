//! Expressions as they grow, and the selectors that they grow from.

use std::collections::BTreeSet;

use super::stand::{EXTERNAL, INNER_REPLICA, REPLICA};
use crate::support::Random;

/// An expression of the user, and what stands for it where series lack the replica labels.
#[derive(Clone, Debug, Default)]
pub(super) struct Expression {
    /// Of the user.
    pub(super) text: String,
    /// The same over series without [`REPLICA`], on which its matchers are resolved already.
    pub(super) held: String,
    /// What it is made of.
    pub(super) features: BTreeSet<String>,
    /// Whether it has to stand in parentheses where it is an operand.
    pub(super) is_open: bool,
    /// The function whose call it is, where that decides the order of an instant vector.
    pub(super) sorted_by: Option<&'static str>,
}

impl Expression {
    pub(super) fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            held: text.to_owned(),
            ..Self::default()
        }
    }

    /// `template` with `parts` in place of each `§` in turn.
    pub(super) fn of(template: &str, parts: &[&Self]) -> Self {
        let mut whole = Self::default();
        let mut pieces = template.split('§');
        let first = pieces.next().unwrap();
        whole.text.push_str(first);
        whole.held.push_str(first);
        let mut parts = parts.iter();
        for piece in pieces {
            let part = parts.next().unwrap();
            whole.text.push_str(&part.text);
            whole.text.push_str(piece);
            whole.held.push_str(&part.held);
            whole.held.push_str(piece);
            whole.features.extend(part.features.iter().cloned());
        }
        assert!(parts.next().is_none(), "{template}");
        whole
    }

    pub(super) fn with(mut self, feature: &str) -> Self {
        self.features.insert(feature.to_owned());
        self
    }

    pub(super) fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// As an operand.
    pub(super) fn closed(self) -> Self {
        if self.is_open {
            Self::of("(§)", &[&self])
        } else {
            self
        }
    }
}

/// Choices.
pub(super) trait Choose {
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T;
    fn percent(&mut self, percent: u64) -> bool;
}

impl Choose for Random {
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let at = self.below(u64::try_from(choices.len()).unwrap());
        choices[usize::try_from(at).unwrap()]
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A matcher on an external label as it is written, and whether the label matches.
#[derive(Clone, Copy, Debug)]
struct Held {
    name: &'static str,
    op: &'static str,
    /// Quoted.
    value: &'static str,
    is_match: bool,
}

const fn held(name: &'static str, op: &'static str, value: &'static str, is_match: bool) -> Held {
    Held {
        name,
        op,
        value,
        is_match,
    }
}

const MATCHING: &[Held] = &[
    held("Aaa", "=", "\"first\"", true),
    held("Aaa", "!=", "\"\"", true),
    held("cluster", "=", "\"eu1\"", true),
    held("cluster", "=", "'eu1'", true),
    held("cluster", "!=", "\"us\"", true),
    held("cluster", "!=", "\"\"", true),
    held("cluster", "=~", "\"eu.*|us\"", true),
    held("cluster", "=~", "\".*\"", true),
    held("cluster", "=~", "\"us|\\x65u[0-9]\"", true),
    held("cluster", "!~", "\"us.*\"", true),
    held("cluster", "!~", "\"eu\"", true),
    held("cluster", "!~", "\"\"", true),
    held(REPLICA, "=", "\"a\"", true),
    held(REPLICA, "=~", "`a|b`", true),
    held(REPLICA, "!=", "\"b\"", true),
    held(REPLICA, "!~", "\"b.*\"", true),
    held("zone", "=", "\"q\\\"uote $1 \\\\d ünï\"", true),
    held("zone", "=", "`q\"uote $1 \\d ünï`", true),
    held("zone", "=~", "\"q.*\"", true),
    held("zone", "=~", "`q\"uote \\$1 .d ünï`", true),
    held("zone", "!~", "\"q\"", true),
    held("zzz", "=", "\"last\"", true),
    held("zzz", "=~", "\"(?i)LA(ST|KE)\"", true),
];

const MISMATCHING: &[Held] = &[
    held("Aaa", "=", "\"firs\"", false),
    held("cluster", "=", "\"us\"", false),
    held("cluster", "=", "\"\"", false),
    held("cluster", "!=", "'eu1'", false),
    held("cluster", "=~", "`us`", false),
    held("cluster", "=~", "\"eu\"", false),
    held("cluster", "=~", "\"\"", false),
    held("cluster", "!~", "\".+\"", false),
    held("cluster", "!~", "\".*\"", false),
    held(REPLICA, "=", "\"b\"", false),
    held(REPLICA, "!=", "\"a\"", false),
    held(REPLICA, "=~", "\"b|\"", false),
    held(REPLICA, "!~", "\"a\"", false),
    held("zone", "=", "\"q\"", false),
    held("zone", "!~", "\"q.*\"", false),
    held("zzz", "=", "\"\"", false),
];

/// Never matches, and gives the series of `absent` no label.
const NEVER: &str = "nosuch!~\".*\"";

/// Metrics of floats.
pub(super) const METRICS: &[&str] = &[
    "http_requests_total",
    "cpu_seconds_total",
    "memory_bytes",
    "memory_limit_bytes",
    "up",
    "odd",
    "gone",
    "seen_seconds",
    "usage",
    "build_info",
    "pre",
    "lat_bucket",
    "lat_sum",
];
const OWN_METRICS: &[&str] = &["own_gauge", "own_some", "own_same"];
/// A feature: native histograms are among its series.
pub(super) const OF_HISTOGRAMS: &str = "selector of histograms";
/// A feature: some of its series begin with the labels of others, so that an external label
/// changes in which order Prometheus has them.
pub(super) const OF_PREFIXES: &str = "selector of prefixes";
pub(super) const HISTOGRAMS: &[&str] = &["nh", "nhf"];

const OWN_MATCHERS: &[&str] = &[
    "job=\"api\"",
    "job=~\"api|web\"",
    "instance!=\"i3:81\"",
    "job!=\"\"",
    "nosuch=\"\"",
    "job=~\".+\"",
    "instance=~'i1.*'",
    "mode!~\"idle\"",
    "code=~\"5..|\"",
    "b!=\"2\"",
];

/// A selector before it is written.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    /// `None`: it has matchers only.
    metric: Option<&'static str>,
    is_name_a_matcher: bool,
    own: Vec<&'static str>,
    external: Vec<Held>,
}

impl Selector {
    /// Of one metric, mostly with series.
    pub(super) fn of(random: &mut Random, metric: &'static str) -> Self {
        let mut own = Vec::new();
        while random.percent(30) && own.len() < 3 {
            own.push(random.one_of(OWN_MATCHERS));
        }
        if random.percent(3) {
            own.push("job=\"none\"");
        }
        let mut external = Vec::new();
        while random.percent(30) && external.len() < 3 {
            let list = if random.percent(90) {
                MATCHING
            } else {
                MISMATCHING
            };
            external.push(random.one_of(list));
        }
        Self {
            metric: Some(metric),
            is_name_a_matcher: metric.contains('.') || random.percent(15),
            own,
            external,
        }
    }

    /// Of any metric of floats, or of any series at all.
    pub(super) fn any(random: &mut Random, has_utf8: bool, has_own: bool) -> Self {
        let metric = match random.below(100) {
            0..20 if has_own => random.one_of(OWN_METRICS),
            0..4 if has_utf8 => "my.metric",
            _ => random.one_of(METRICS),
        };
        let mut this = Self::of(random, metric);
        // One has to be there that the empty label does not match.
        let is_enough = |held: &Held| (held.op == "=") != (held.value == "\"\"") && held.op != "=~";
        if random.percent(10) && this.external.iter().any(is_enough) {
            this.metric = None;
        }
        this
    }

    /// As the argument of `absent`: mostly of nothing.
    pub(super) fn of_nothing(random: &mut Random) -> Self {
        let metric = random.one_of(&["nosuch", "nosuch", "up"]);
        let mut this = Self::of(random, metric);
        let name = random.one_of(&["cluster", REPLICA, "zone", "zzz", "Aaa"]);
        for list in [MATCHING, MISMATCHING] {
            if random.percent(50) {
                let of_name: Vec<_> = list.iter().filter(|held| held.name == name).collect();
                this.external.push(*random.one_of(&of_name));
            }
        }
        this.is_name_a_matcher = random.percent(10);
        this
    }

    pub(super) fn written(&self, random: &mut Random) -> Expression {
        let mut user = Vec::new();
        let mut others = Vec::new();
        let comma = random.one_of(&[",", ",", ", ", " ,\t"]);
        let mut name = "";
        match self.metric {
            Some(metric) if metric.contains('.') => user.push(format!("\"{metric}\"")),
            Some(metric) if self.is_name_a_matcher => user.push(format!("__name__=\"{metric}\"")),
            Some(metric) => name = metric,
            None => {}
        }
        others.extend(user.iter().cloned());
        for &own in &self.own {
            user.push(own.to_owned());
            others.push(own.to_owned());
        }
        let mut expression = Expression::default();
        for held in &self.external {
            let Held {
                name, op, value, ..
            } = held;
            // The order of matchers decides what `absent` tells.
            let is_first = random.percent(50);
            let put = |list: &mut Vec<String>, text: String| match is_first {
                true => list.insert(0, text),
                false => list.push(text),
            };
            let text = format!("{name}{op}{value}");
            let feature = format!("matcher {op} {}", if held.is_match { "yes" } else { "no" });
            expression.features.insert(feature);
            put(&mut user, text.clone());
            if held.name != REPLICA {
                put(&mut others, text);
            } else if !held.is_match {
                put(&mut others, NEVER.to_owned());
            }
        }
        if self.metric.is_none() {
            // One of those that are gone may be what made it a selector.
            others.push("__name__!=\"\"".to_owned());
        }
        if self.metric.is_some_and(|metric| metric.contains('.')) {
            expression.features.insert("name utf8".to_owned());
        }
        if self
            .metric
            .is_none_or(|metric| HISTOGRAMS.contains(&metric))
        {
            expression.features.insert(OF_HISTOGRAMS.to_owned());
        }
        if self.metric.is_none_or(|metric| metric == "pre") {
            expression.features.insert(OF_PREFIXES.to_owned());
        }
        let braces = |matchers: &[String], is_wanted: bool| {
            let text = matchers.join(comma);
            if text.is_empty() && !is_wanted {
                String::new()
            } else {
                format!("{{{text}}}")
            }
        };
        let is_wanted = random.percent(10);
        expression.text = format!("{name}{}", braces(&user, is_wanted));
        expression.held = format!("{name}{}", braces(&others, is_wanted));
        expression
    }

    /// `absent` or `absent_over_time` of `argument`, which is this selector written. Its labels
    /// are those of the matchers as the user wrote them, and not of any series.
    pub(super) fn absence(&self, function: &str, argument: &Expression) -> Expression {
        let mut whole = Expression::of(&format!("{function}(§)"), &[argument]);
        if let Some(value) = self.absent_value(&argument.text) {
            whole.held = format!(
                "label_replace({},\"{REPLICA}\",{value},\"\",\"\")",
                whole.held
            );
        }
        whole
    }

    /// What `absent` tells of [`REPLICA`]: its value where the first matcher is the only one.
    fn absent_value(&self, text: &str) -> Option<&'static str> {
        let mut of_replica: Vec<_> = self
            .external
            .iter()
            .filter(|held| held.name == REPLICA)
            .collect();
        of_replica.sort_by_key(|held| text.find(&format!("{}{}", held.op, held.value)));
        let is_equal = |held: &&Held| held.op == "=";
        let is_one = of_replica.len() == 1 && of_replica.iter().all(is_equal);
        is_one.then(|| of_replica[0].value)
    }

    /// Whether it has at most one matcher on [`REPLICA`], so that [`Self::absence`] can be told.
    pub(super) fn is_plain(&self) -> bool {
        let of_replica = self.external.iter().filter(|held| held.name == REPLICA);
        of_replica.count() <= 1
    }
}

/// Labels for lists: of stored series, external ones, one that only some have, one that none has.
pub(super) fn label(random: &mut Random) -> &'static str {
    match random.below(100) {
        0..55 => random.one_of(&[
            "job", "instance", "job", "instance", "code", "mode", "a", "b",
        ]),
        55..90 => random.one_of(&EXTERNAL).0,
        90..94 => INNER_REPLICA,
        94..97 => "zz",
        _ => "nosuch",
    }
}

/// A list of labels, with `always` among them.
pub(super) fn labels(random: &mut Random, always: &[&'static str]) -> Vec<&'static str> {
    let mut list = always.to_vec();
    while random.percent(55) && list.len() < 5 {
        let name = label(random);
        if !list.contains(&name) {
            list.push(name);
        }
    }
    list
}

/// Whether an external label is among them.
pub(super) fn has_external(list: &[&str]) -> bool {
    list.iter()
        .any(|name| EXTERNAL.iter().any(|(external, _)| external == name))
}
