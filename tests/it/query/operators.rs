//! Binary operators and how their sides find each other.

use super::dialect::{COMPARISONS, SETS};
use super::expression::{Choose as _, Expression, Selector, has_external, labels};
use super::generator::Generator;

/// Metrics that have one series for each job and instance.
const SINGLES: &[&str] = &[
    "memory_bytes",
    "memory_limit_bytes",
    "up",
    "lat_count",
    "seen_seconds",
];
/// Metrics that have several.
const MANIES: &[&str] = &[
    "http_requests_total",
    "cpu_seconds_total",
    "lat_bucket",
    "usage",
];

impl Generator<'_> {
    pub(super) fn binary(&mut self, operator: &'static str, depth: u64) -> Expression {
        let is_set = SETS.contains(&operator);
        let is_comparison = COMPARISONS.contains(&operator);
        let depth = depth.saturating_sub(1);
        let written = match is_comparison && self.random.percent(45) {
            true => format!("{operator} bool"),
            false => operator.to_owned(),
        };
        let expression = match self.random.below(100) {
            0..20 if !is_set => self.with_scalar(&written, depth),
            20..50 => self.one_to_one(&written, is_set, depth),
            50..75 if !is_set => self.many_to_one(&written),
            _ => {
                let (left, right) = (self.vector(depth), self.vector(depth));
                let matching = self.matching(&[]);
                let template = format!("§ {written}{matching} §");
                Expression::of(&template, &[&left.closed(), &right.closed()])
            }
        };
        let feature = format!("operator {operator}");
        let expression = match written.ends_with("bool") {
            true => expression.with("operator bool"),
            false => expression,
        };
        expression.with(&feature).open()
    }

    fn with_scalar(&mut self, operator: &str, depth: u64) -> Expression {
        let (vector, scalar) = (self.vector(depth).closed(), self.scalar(depth).closed());
        let parts = match self.random.percent(50) {
            true => [&vector, &scalar],
            false => [&scalar, &vector],
        };
        Expression::of(&format!("§ {operator} §"), &parts)
    }

    /// Both sides have one series for each set of some labels.
    fn one_to_one(&mut self, operator: &str, is_set: bool, depth: u64) -> Expression {
        if !is_set && self.random.percent(40) {
            let (left, right) = (self.single(), self.single());
            let (matching, kind) = match self.random.below(3) {
                0 => (String::new(), "none".to_owned()),
                1 => {
                    let names = labels(&mut self.random, &["job", "instance"]);
                    (format!(" on ({})", names.join(", ")), on_kind("on", &names))
                }
                _ => {
                    let mut names = labels(&mut self.random, &[]);
                    names.retain(|name| *name != "job" && *name != "instance");
                    (
                        format!(" ignoring({})", names.join(",")),
                        on_kind("ignoring", &names),
                    )
                }
            };
            let fill = self.fill();
            let whole =
                Expression::of(&format!("§ {operator}{matching}{fill} §"), &[&left, &right]);
            let whole = whole.with(&format!("matching {kind}"));
            return if fill.is_empty() {
                whole
            } else {
                whole.with("modifier fill")
            };
        }
        let names = labels(&mut self.random, &[]);
        let list = names.join(", ");
        let (left, right) = (self.vector(depth), self.vector(depth));
        let matching = match self.random.below(3) {
            0 => String::new(),
            1 => format!(" on({list})"),
            _ => " ignoring ()".to_owned(),
        };
        let kind = match matching.split_whitespace().next() {
            Some(word) if word.starts_with("on") => on_kind("on", &names),
            Some(_) => "ignoring stored".to_owned(),
            None => "none".to_owned(),
        };
        let [one, other] = [0; 2].map(|_| self.random.one_of(&["sum", "max", "count", "min"]));
        let template =
            format!("{one} by ({list}) (§) {operator}{matching} {other} by ({list}) (§)");
        Expression::of(&template, &[&left, &right]).with(&format!("matching {kind}"))
    }

    fn single(&mut self) -> Expression {
        let metric = self.random.one_of(SINGLES);
        Selector::of(&mut self.random, metric).written(&mut self.random)
    }

    fn fill(&mut self) -> &'static str {
        let choices = [" fill(0)", " fill_left(1) fill_right(2)", " fill_right(-1)"];
        match self.dialect.has_fill && self.random.percent(30) {
            true => self.random.one_of(&choices),
            false => "",
        }
    }

    /// `group_left` and `group_right`.
    fn many_to_one(&mut self, operator: &str) -> Expression {
        let metric = self.random.one_of(MANIES);
        let many = Selector::of(&mut self.random, metric).written(&mut self.random);
        let one = match self.random.percent(50) {
            true => Selector::of(&mut self.random, "build_info").written(&mut self.random),
            false => self.single(),
        };
        let (on, kind) = match self.random.percent(70) {
            true => {
                let names = labels(&mut self.random, &["job", "instance"]);
                let names: Vec<_> = names
                    .into_iter()
                    .filter(|n| !["code", "mode", "zz"].contains(n))
                    .collect();
                (format!("on({})", names.join(", ")), on_kind("on", &names))
            }
            false => {
                let mut names = labels(&mut self.random, &["code", "method", "mode", "le", "zz"]);
                names.retain(|name| *name != "job" && *name != "instance");
                names.push("version");
                (
                    format!("ignoring ({})", names.join(",")),
                    on_kind("ignoring", &names),
                )
            }
        };
        let mut include = match self.random.below(3) {
            0 => Vec::new(),
            1 => vec!["version"],
            _ => labels(&mut self.random, &[]),
        };
        if kind.starts_with("on") {
            // What is matched on can't be included.
            include.retain(|name| !on.contains(name));
        }
        let included = match (include.is_empty(), has_external(&include)) {
            (true, _) => "",
            (false, true) => " including external",
            (false, false) => " including stored",
        };
        let list = include.join(", ");
        let is_left = self.random.percent(50);
        let (side, parts) = match is_left {
            true => ("group_left", [&many, &one]),
            false => ("group_right", [&one, &many]),
        };
        let group = match list.is_empty() && self.random.percent(50) {
            true => side.to_owned(),
            false => format!("{side} ({list})"),
        };
        let whole = Expression::of(&format!("§ {operator} {on} {group} §"), &parts);
        whole
            .with(&format!("matching {kind}"))
            .with(&format!("{side}{included}"))
    }

    /// Any matching at all, or none.
    fn matching(&mut self, always: &[&'static str]) -> String {
        let names = labels(&mut self.random, always).join(", ");
        match self.random.below(3) {
            0 => format!(" on ({names})"),
            1 => format!(" ignoring({names})"),
            _ => String::new(),
        }
    }
}

fn on_kind(word: &str, names: &[&str]) -> String {
    let kind = if has_external(names) {
        "external"
    } else {
        "stored"
    };
    format!("{word} {kind}")
}
