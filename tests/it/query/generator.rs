//! Expressions by chance, of the right types, with all that a Prometheus knows in them.

use super::dialect::{AGGREGATIONS, ARITHMETIC, COMPARISONS, Dialect, Function, SETS};
use super::expression::{
    Choose as _, Expression, HISTOGRAMS, Selector, has_external, label, labels,
};
use crate::support::Random;

/// How deep expressions are.
const DEPTH_MAX: u64 = 5;
/// How often each function and operator is the outermost one, before chance alone decides.
const ROUNDS: usize = 4;

/// Makes one expression.
pub(super) struct Generator<'a> {
    pub(super) dialect: &'a Dialect,
    pub(super) random: Random,
    /// Whether there are series with labels of their own that are named as external ones.
    pub(super) has_own: bool,
}

impl Generator<'_> {
    /// The expression of this number; the same for the same seed and dialect.
    pub(super) fn expression(&mut self, number: usize) -> Expression {
        let dialect = self.dialect;
        let (functions, aggregations) = (dialect.functions.len(), dialect.aggregations.len());
        let operators: Vec<_> = [ARITHMETIC, COMPARISONS, SETS].concat();
        let directed = functions + aggregations + 2 * operators.len();
        let depth = 1 + self.random.below(2);
        let at = number % directed;
        if number >= ROUNDS * directed {
            return self.any();
        }
        if let Some(function) = dialect.functions.get(at) {
            return self.call(function, depth);
        }
        let at = at - functions;
        match dialect.aggregations.get(at) {
            Some(name) => self.aggregation(name, depth),
            None => self.binary(operators[(at - aggregations) % operators.len()], depth),
        }
    }

    fn any(&mut self) -> Expression {
        let depth = 1 + self.random.below(DEPTH_MAX);
        match self.random.below(100) {
            0..5 => self.scalar(depth),
            5 => Expression::plain(
                self.random
                    .one_of(&["\"text\"", "'it''s'", "`a\\b`", "\"ü\""]),
            ),
            6..10 => self.matrix(depth.min(2)),
            10..13 => self.broken(depth),
            13..18 => {
                let inner = self.vector(depth);
                let template = self.random.one_of(&[
                    "\n\t# it's \"odd\" {\n§\r\n",
                    "  ( \t§ ) ",
                    "§ # sum by (",
                    "((§))",
                ]);
                Expression::of(template, &[&inner]).with("form odd")
            }
            _ => self.vector(depth),
        }
    }

    /// What Prometheus refuses, or evaluates to an error.
    fn broken(&mut self, depth: u64) -> Expression {
        let inner = self.vector(depth.min(2));
        let template = self.random.one_of(&[
            "(§",
            "§)",
            "rate(§)",
            "nosuch(§)",
            "sum by (job §",
            "§ offset",
            "§ + on() 1",
            "§ and 1",
            "topk(§)",
            "abs(§, 1)",
            "label_replace(§, \"job\", \"x\", \"y\", \"(\")",
            "count_values(\"1-\", §)",
            "{}",
            "§{",
            "-\"text\"",
            "scalar(1)",
            "§[5m]",
            "1 > 2",
            "{cluster!~\"us\"}",
            "§ offset 5",
            "§[5m:1m:1m]",
            "§ @ x",
            "topk by (§)",
        ]);
        let parts = [&inner];
        let parts = if template.contains('§') {
            &parts[..]
        } else {
            &[]
        };
        Expression::of(template, parts)
    }

    pub(super) fn vector(&mut self, depth: u64) -> Expression {
        if depth == 0 {
            return self.instant();
        }
        match self.random.below(100) {
            0..18 => self.instant(),
            18..52 => {
                let functions: Vec<_> = self.dialect.functions.to_vec();
                let function = self.random.one_of(&functions);
                if function.returns == 'v' {
                    self.call(function, depth)
                } else {
                    let scalar = self.scalar(depth);
                    Expression::of("vector(§)", &[&scalar]).with("function vector")
                }
            }
            52..74 => {
                let name = self.random.one_of(&self.dialect.aggregations.clone());
                self.aggregation(name, depth)
            }
            74..94 => {
                let operators = [ARITHMETIC, COMPARISONS, SETS];
                let operators = self.random.one_of(&operators);
                let operator = self.random.one_of(operators);
                self.binary(operator, depth)
            }
            94..97 => {
                let inner = self.vector(depth - 1).closed();
                let sign = self.random.one_of(&["-§", "+§"]);
                Expression::of(sign, &[&inner])
                    .with("operator unary")
                    .open()
            }
            _ => {
                let inner = self.vector(depth - 1);
                Expression::of("(§)", &[&inner])
            }
        }
    }

    /// An instant selector, with or without modifiers.
    pub(super) fn instant(&mut self) -> Expression {
        let selector = self.selector();
        self.modified(&selector)
    }

    fn selector(&mut self) -> Expression {
        if self.random.percent(6) {
            return self.histograms();
        }
        let selector = Selector::any(&mut self.random, self.dialect.has_utf8, self.has_own);
        selector.written(&mut self.random)
    }

    fn histograms(&mut self) -> Expression {
        let metric = self.random.one_of(HISTOGRAMS);
        Selector::of(&mut self.random, metric).written(&mut self.random)
    }

    fn modified(&mut self, what: &Expression) -> Expression {
        if self.random.percent(80) {
            return what.clone();
        }
        let mut choices = vec![
            ("§ offset 2m", "offset"),
            ("§ offset -1m30s", "offset negative"),
            ("§ @ 1700000905.5", "at"),
            ("§ @ start()", "at start"),
            ("§ @ end()", "at end"),
            ("§ @ 1700000900 offset 1m", "at"),
            ("§ offset 1m @ end()", "at end"),
            ("§\toffset  1m\n@  start ( )", "at start"),
        ];
        if self.dialect.has_duration_expressions {
            choices.push(("§ offset (1m * 2)", "offset expression"));
        }
        let (template, feature) = self.random.one_of(&choices);
        Expression::of(template, &[what]).with(&format!("modifier {feature}"))
    }

    pub(super) fn matrix(&mut self, depth: u64) -> Expression {
        if depth == 0 || self.random.percent(65) {
            let selector = self.selector();
            return self.ranged(&selector);
        }
        let mut inner = self.vector(depth - 1);
        if inner.is_open || self.random.percent(60) {
            inner = Expression::of("(§)", &[&inner]);
        }
        let (template, feature) = self.random.one_of(&[
            ("§[6m:1m]", "subquery"),
            ("§[5m:50s]", "subquery"),
            ("§[4m:]", "subquery default step"),
            ("§ [ 3m : 30s ]", "subquery"),
        ]);
        let subquery = Expression::of(template, &[&inner]).with(&format!("modifier {feature}"));
        self.modified(&subquery)
    }

    /// A selector over a range.
    fn ranged(&mut self, selector: &Expression) -> Expression {
        let mut choices = vec![("§[5m]", ""), ("§[2m30s]", ""), ("§ [ 8m ]", "")];
        // Only some functions take those.
        if self.dialect.has_extended_selectors && self.random.percent(12) {
            choices.clear();
            choices.push(("§[5m] anchored", "anchored"));
            choices.push(("§[5m] smoothed", "smoothed"));
        }
        if self.dialect.has_duration_expressions {
            choices.push(("§[2m + 150s]", "range expression"));
        }
        let (template, feature) = self.random.one_of(&choices);
        let mut range = Expression::of(template, &[selector]);
        if !feature.is_empty() {
            return range.with(&format!("modifier {feature}"));
        }
        range = self.modified(&range);
        range
    }

    pub(super) fn scalar(&mut self, depth: u64) -> Expression {
        let names: Vec<_> = self
            .dialect
            .functions
            .iter()
            .filter(|f| f.returns == 's')
            .collect();
        match self.random.below(10) {
            0..3 if depth > 0 => {
                let function = *self.random.one_of(&names);
                self.call(function, depth)
            }
            3 if depth > 0 => {
                let (left, right) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let operator = self
                    .random
                    .one_of(&["+", "-", "*", "/", "^", "> bool", "== bool"]);
                let template = format!("§ {operator} §");
                Expression::of(&template, &[&left.closed(), &right.closed()]).open()
            }
            _ => {
                let numbers = [
                    "1", "0.5", "2", "-3", "1e2", "0x1F", "Inf", "NaN", "60", ".25", "7",
                ];
                let number = self.random.one_of(&numbers);
                let expression = Expression::plain(number);
                if number.starts_with('-') {
                    expression.open()
                } else {
                    expression
                }
            }
        }
    }

    /// A call of this function.
    pub(super) fn call(&mut self, function: &'static Function, depth: u64) -> Expression {
        let name = function.name;
        let depth = depth.max(1);
        let call = match function.arguments.strip_prefix('*') {
            Some(_) => self.special(name, depth),
            None => {
                let arguments = self.arguments(function.arguments, depth - 1);
                let comma = self.random.one_of(&[",", ", "]);
                let places = vec!["§"; arguments.len()].join(comma);
                let parts: Vec<_> = arguments.iter().collect();
                Expression::of(&format!("{name}({places})"), &parts)
            }
        };
        let mut call = call.with(&format!("function {name}"));
        call.sorted_by = name.starts_with("sort").then_some(name);
        call
    }

    fn arguments(&mut self, kinds: &str, depth: u64) -> Vec<Expression> {
        let mut arguments = Vec::new();
        for kind in kinds.chars() {
            arguments.push(match kind {
                '?' if self.random.percent(50) => break,
                '?' => continue,
                'v' => self.vector(depth),
                'm' => self.matrix(depth),
                _ if self.random.percent(60) => {
                    Expression::plain(self.random.one_of(&["0.5", "2", "0.9", "10", "-1"]))
                }
                _ => self.scalar(depth),
            });
        }
        arguments
    }

    /// Functions for which chance alone would rarely find arguments that give something.
    fn special(&mut self, name: &str, depth: u64) -> Expression {
        match name {
            "absent" | "absent_over_time" => self.absence(name, depth),
            "label_replace" => self.label_replace(depth),
            "label_join" => self.label_join(depth),
            "sort_by_label" | "sort_by_label_desc" => {
                let inner = self.vector(depth - 1);
                let names = labels(&mut self.random, &[]);
                let names = if names.is_empty() { vec!["job"] } else { names };
                let names: Vec<_> = names.iter().map(|name| format!(", \"{name}\"")).collect();
                Expression::of(&format!("{name}(§{})", names.concat()), &[&inner])
            }
            "info" => self.info(depth),
            "double_exponential_smoothing" | "holt_winters" => {
                let inner = self.matrix(depth - 1);
                Expression::of(&format!("{name}(§, 0.3, 0.7)"), &[&inner])
            }
            "histogram_quantile" | "histogram_quantiles" => {
                let inner = self.buckets();
                if name == "histogram_quantile" {
                    let scalar = self
                        .random
                        .one_of(&["0.9", "0.5", "1", "0", "2", "scalar(up)"]);
                    return Expression::of(&format!("{name}({scalar}, §)"), &[&inner]);
                }
                let label = self
                    .random
                    .one_of(&["quantile", "q", "cluster", "zone", "replica"]);
                Expression::of(&format!("{name}(§, \"{label}\", 0.5, 0.9)"), &[&inner])
            }
            "histogram_fraction" => {
                let inner = self.histogram_vector();
                Expression::of("histogram_fraction(0.5, 2, §)", &[&inner])
            }
            _ => {
                let inner = self.histogram_vector();
                Expression::of(&format!("{name}(§)"), &[&inner])
            }
        }
    }

    fn histogram_vector(&mut self) -> Expression {
        let histograms = self.histograms();
        let inner = self.modified(&histograms);
        match self.random.below(4) {
            0 => Expression::of("rate(§[5m])", &[&histograms]),
            1 => {
                let names = labels(&mut self.random, &[]).join(", ");
                Expression::of(&format!("sum by ({names}) (§)"), &[&inner])
            }
            _ => inner,
        }
    }

    /// Buckets, classic ones with all grouping that histograms get.
    fn buckets(&mut self) -> Expression {
        if self.random.percent(25) {
            return self.histogram_vector();
        }
        let selector = Selector::of(&mut self.random, "lat_bucket").written(&mut self.random);
        let rate = Expression::of("rate(§[5m])", &[&selector]);
        let names = labels(&mut self.random, &["le"]);
        match self.random.below(4) {
            0 => selector,
            1 => rate,
            _ => Expression::of(&format!("sum by ({}) (§)", names.join(",")), &[&rate]),
        }
    }

    fn absence(&mut self, name: &str, depth: u64) -> Expression {
        if self.random.percent(25) {
            let inner = if name == "absent" {
                self.vector(depth - 1)
            } else {
                self.matrix(depth)
            };
            return Expression::of(&format!("{name}(§)"), &[&inner]);
        }
        let selector = loop {
            let selector = Selector::of_nothing(&mut self.random);
            if selector.is_plain() {
                break selector;
            }
        };
        let written = selector.written(&mut self.random);
        let written = match name {
            "absent" => self.modified(&written),
            _ => self.ranged(&written),
        };
        selector.absence(name, &written)
    }

    fn label_replace(&mut self, depth: u64) -> Expression {
        let inner = self.vector(depth - 1);
        let target = label(&mut self.random);
        let target = self
            .random
            .one_of(&[target, target, target, "new", "__name__"]);
        let source = label(&mut self.random);
        let replacement = self
            .random
            .one_of(&["$1", "x-$1", "", "$0", "${1}y", "fix", "$$1", "$name"]);
        let pattern = self.random.one_of(&[
            "(.*)",
            "(.+)",
            "eu(.)",
            "",
            "(?P<name>i).*",
            "q.*\\\\$(1).*",
        ]);
        let template = format!(
            "label_replace(§, \"{target}\", \"{replacement}\", \"{source}\", \"{pattern}\")"
        );
        Expression::of(&template, &[&inner])
    }

    fn label_join(&mut self, depth: u64) -> Expression {
        let inner = self.vector(depth - 1);
        let target = label(&mut self.random);
        let target = self.random.one_of(&[target, "new"]);
        let sources = labels(&mut self.random, &[]);
        let sources: Vec<_> = sources.iter().map(|name| format!(", \"{name}\"")).collect();
        let separator = self.random.one_of(&["-", "", "$1", "\\\""]);
        let template = format!(
            "label_join(§, \"{target}\", \"{separator}\"{})",
            sources.concat()
        );
        Expression::of(&template, &[&inner])
    }

    fn info(&mut self, depth: u64) -> Expression {
        let inner = self.vector(depth - 1);
        let more = self.random.one_of(&[
            "",
            "",
            ", {k8s_pod=~\".+\"}",
            ", {region!=\"\"}",
            ", {cluster=~\".+\"}",
            ", {__name__=\"build_info\"}",
            ", {cluster=\"us\"}",
            ", {zone!=\"\", region=~\".*\"}",
        ]);
        Expression::of(&format!("info(§{more})"), &[&inner])
    }

    pub(super) fn aggregation(&mut self, name: &str, depth: u64) -> Expression {
        assert!(AGGREGATIONS.contains(&name));
        let inner = self.vector(depth.saturating_sub(1));
        let mut names = labels(&mut self.random, &[]);
        let comma = self.random.one_of(&[",", ", "]);
        let way = self.random.one_of(&["", "by", "by", "without"]);
        let parameter = match name {
            "topk" | "bottomk" | "limitk" => self.random.one_of(&["1, ", "2, ", "3,", "100, "]),
            "quantile" => self
                .random
                .one_of(&["0.5, ", "0.9, ", "1.5, ", "scalar(up), "]),
            "limit_ratio" => self.random.one_of(&["0.5, ", "-0.4, ", "1, "]),
            "count_values" => self.random.one_of(&[
                "\"value\", ",
                "\"cluster\", ",
                "\"replica\", ",
                "\"zone\", ",
                "'job', ",
                "\"zz\",",
            ]),
            _ => "",
        };
        if name == "count_values" && way == "by" && !self.dialect.has_utf8 {
            // 2.42 loses labels that stand behind that of the value.
            let of_value = parameter.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            names.retain(|name| *name < of_value);
        }
        let list = names.join(comma);
        let template = match (way, self.random.percent(70)) {
            ("", _) => format!("{name}({parameter}§)"),
            (way, true) => format!("{name} {way} ({list}) ({parameter}§)"),
            (way, false) => format!("{name}({parameter}§) {way}({list})"),
        };
        let kind = if has_external(&names) {
            "external"
        } else {
            "stored"
        };
        let way = if way.is_empty() {
            "all".to_owned()
        } else {
            format!("{way} {kind}")
        };
        let whole = Expression::of(&template, &[&inner]).with(&format!("aggregation {name}"));
        whole.with(&format!("grouping {way}"))
    }
}
