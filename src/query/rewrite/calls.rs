//! Functions and aggregations: what each does with labels.

use std::ops::Range;

use promql_parser::parser::token::{
    T_BOTTOMK, T_COUNT_VALUES, T_LEFT_PAREN, T_LIMIT_RATIO, T_LIMITK, T_RIGHT_PAREN, T_TOPK,
};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{AggregateExpr, Call, Expr};

use super::labels::{Carried, Names};
use super::selector::{AbsentLabel, Selector, absent_label};
use super::walk::{Node, Walk};
use super::{LabelOverlay, RewriteError};

const BUCKET: &str = "le";
const NAME: &str = "__name__";
/// Which argument names the label that a function sets, from 0.
const SET_LABEL: usize = 1;
/// What `info` finds the info series of a series by.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// What a function does with the labels of the vector that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Labels {
    /// Gives them to its result, but for the metric's name: nearly all.
    Pass,
    /// Passes them, and looks at its argument: no call may stand between.
    PassUntouched,
    /// Makes up its own out of matchers.
    Absent,
    /// There are none in the result.
    Drop,
    /// Sets the label that the second argument names, and looks at those that the arguments from
    /// this one on name, or only this one.
    Named { read: ReadFrom },
    /// Looks at `le` and takes it off.
    Bucket,
    /// The same, and sets the label that the second argument names.
    Quantiles,
    /// Looks at all.
    Order,
    /// Takes more from info series.
    Info,
}

/// Which arguments name labels that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFrom {
    Nothing,
    One(usize),
    From(usize),
}

/// Functions whose result has the labels of their argument, but for the metric's name, or which
/// have no series among their arguments.
const PASSING: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count_over_time",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "delta",
    "deriv",
    "double_exponential_smoothing",
    "end",
    "exp",
    "first_over_time",
    "floor",
    "histogram_avg",
    "histogram_count",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "holt_winters",
    "hour",
    "idelta",
    "increase",
    "irate",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "mad_over_time",
    "max_of",
    "max_over_time",
    "min_of",
    "min_over_time",
    "minute",
    "month",
    "pi",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rad",
    "range",
    "rate",
    "resets",
    "round",
    "sgn",
    "sin",
    "sinh",
    "sort",
    "sort_desc",
    "sqrt",
    "start",
    "stddev_over_time",
    "stdvar_over_time",
    "step",
    "sum_over_time",
    "tan",
    "tanh",
    "time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "year",
];

fn labels_of(function: &str) -> Option<Labels> {
    if PASSING.contains(&function) {
        return Some(Labels::Pass);
    }
    Some(match function {
        "start_timestamp" | "timestamp" => Labels::PassUntouched,
        "absent" | "absent_over_time" => Labels::Absent,
        "scalar" | "vector" => Labels::Drop,
        "label_replace" => Labels::Named {
            read: ReadFrom::One(3),
        },
        "label_join" => Labels::Named {
            read: ReadFrom::From(3),
        },
        "histogram_quantiles" => Labels::Quantiles,
        "histogram_fraction" | "histogram_quantile" => Labels::Bucket,
        "sort_by_label" | "sort_by_label_desc" => Labels::Order,
        "info" => Labels::Info,
        _ => return None,
    })
}

impl<'a> Walk<'a> {
    pub(super) fn call(
        &mut self,
        call: &'a Call,
        start: usize,
    ) -> Result<Carried<'a>, RewriteError> {
        let name = call.func.name;
        let labels = labels_of(name).ok_or_else(|| unsupported(format!("function {name}")))?;
        self.tokens.take()?;
        self.tokens.expect(T_LEFT_PAREN)?;
        let mut vector: Option<Node<'a>> = None;
        for (at, argument) in call.args.args.iter().enumerate() {
            self.comma(at)?;
            if labels == Labels::Info && at == 1 {
                self.info_selector(argument)?;
                continue;
            }
            let untouched = matches!(labels, Labels::Absent | Labels::PassUntouched);
            let node = match untouched {
                true => self.node(argument)?,
                false => self.settled(argument)?,
            };
            if matches!(node.value, ValueType::Vector | ValueType::Matrix) {
                vector.get_or_insert(node);
            }
        }
        self.tokens.expect(T_RIGHT_PAREN)?;
        let Some(mut vector) = vector else {
            return Ok(Carried::default());
        };
        let span = start..self.tokens.end();
        self.apply(labels, call, &mut vector, &span)
    }

    /// What a function makes of its vector, whose series get the labels that it looks at.
    fn apply(
        &mut self,
        labels: Labels,
        call: &'a Call,
        vector: &mut Node<'a>,
        span: &Range<usize>,
    ) -> Result<Carried<'a>, RewriteError> {
        let looked_at = match labels {
            Labels::Pass | Labels::PassUntouched => Names::new(),
            Labels::Drop => return Ok(Carried::default()),
            Labels::Absent => {
                if let Some(argument) = call.args.args.first() {
                    self.absent(argument, span)?;
                }
                return Ok(Carried::default());
            }
            Labels::Named { read } => self.named(call, read)?,
            Labels::Bucket => self.overlay.named(BUCKET).collect(),
            Labels::Quantiles => {
                let mut names = self.named(call, ReadFrom::Nothing)?;
                names.extend(self.overlay.named(BUCKET));
                names
            }
            Labels::Order => vector.carried.virt.clone(),
            Labels::Info => {
                self.check_info(call, vector)?;
                Names::new()
            }
        };
        let needed: Names<'a> = vector
            .carried
            .virt
            .intersection(&looked_at)
            .copied()
            .collect();
        if !vector.carried.is_empty {
            self.put_in(vector, &needed);
        }
        Ok(vector.carried.clone())
    }

    /// The labels that strings among the arguments name.
    fn named(&self, call: &'a Call, read: ReadFrom) -> Result<Names<'a>, RewriteError> {
        let mut names = Names::new();
        for (at, argument) in call.args.args.iter().enumerate() {
            let is_read = match read {
                ReadFrom::Nothing => false,
                ReadFrom::One(place) => at == place,
                ReadFrom::From(first) => at >= first,
            };
            if is_read || at == SET_LABEL {
                names.extend(self.overlay.named(literal(argument)?));
            }
        }
        Ok(names)
    }

    /// `absent` tells the labels that its selector asks for; those of external labels are not in
    /// it any more.
    fn absent(&mut self, argument: &'a Expr, span: &Range<usize>) -> Result<(), RewriteError> {
        let selector = match unwrapped(argument) {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(range) => &range.vs,
            _ => return Ok(()),
        };
        for (name, label) in &self.overlay.0 {
            if !label.is_shown {
                continue;
            }
            match absent_label(selector, name) {
                AbsentLabel::None => {}
                AbsentLabel::Value(value) => self.set_label(span, name, value),
                AbsentLabel::Unclear => {
                    return Err(unsupported(format!(
                        "absent() with another matcher on {name} before the one for equality"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The second argument of `info`, which selects labels rather than series.
    fn info_selector(&mut self, argument: &'a Expr) -> Result<(), RewriteError> {
        let Expr::VectorSelector(selector) = argument else {
            return Err(unsupported("info() without a plain selector".to_owned()));
        };
        let written = Selector::take(&mut self.tokens, self.text, selector)?;
        let external = written
            .names()
            .find(|name| self.overlay.0.contains_key(*name));
        match external {
            None => Ok(()),
            Some(name) => Err(unsupported(format!(
                "info() with a matcher on {name}, which no info series carries in Prometheus"
            ))),
        }
    }

    /// Info series have no external labels in Prometheus, so they are found only where those are
    /// not looked at, bring labels along that would have to be replaced, and don't bring the
    /// external ones to series that have lost them.
    fn check_info(&self, call: &'a Call, vector: &Node<'a>) -> Result<(), RewriteError> {
        let brings_all = match call.args.args.get(1).map(|argument| &**argument) {
            Some(Expr::VectorSelector(selector)) => {
                selector.matchers.matchers.iter().all(|m| m.name == NAME)
            }
            _ => true,
        };
        for (name, label) in &self.overlay.0 {
            if IDENTIFYING.contains(&&**name) || label.is_stored {
                return Err(unsupported(format!(
                    "info() where {name} is an external label or replica label"
                )));
            }
            let carried = &vector.carried;
            let is_lost = !carried.is_empty && !carried.virt.contains(&**name);
            if brings_all && label.is_shown && is_lost {
                return Err(unsupported(format!(
                    "info() of series without the external label {name}, which it would bring back"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn aggregate(
        &mut self,
        tree: &'a AggregateExpr,
    ) -> Result<Carried<'a>, RewriteError> {
        self.tokens.expect(tree.op.id())?;
        self.grouping()?;
        self.tokens.expect(T_LEFT_PAREN)?;
        if let Some(param) = &tree.param {
            self.settled(param)?;
            self.comma(1)?;
        }
        let mut vector = self.settled(&tree.expr)?;
        self.tokens.expect(T_RIGHT_PAREN)?;
        self.grouping()?;
        Ok(match tree.op.id() {
            T_TOPK | T_BOTTOMK | T_LIMITK => vector.carried,
            // It chooses by a hash over all labels.
            T_LIMIT_RATIO => {
                let all = vector.carried.virt.clone();
                if !vector.carried.is_empty {
                    self.put_in(&mut vector, &all);
                }
                vector.carried
            }
            T_COUNT_VALUES => {
                let mut carried = vector.carried.grouped(tree.modifier.as_ref());
                if let Some(param) = &tree.param {
                    carried.virt.remove(literal(param)?);
                }
                carried
            }
            _ => vector.carried.grouped(tree.modifier.as_ref()),
        })
    }
}

impl LabelOverlay {
    /// This name, where it is one of the overlay.
    fn named(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .get_key_value(name)
            .map(|(name, _)| &**name)
            .into_iter()
    }
}

/// What stands in parentheses.
fn unwrapped(mut tree: &Expr) -> &Expr {
    while let Expr::Paren(paren) = tree {
        tree = &paren.expr;
    }
    tree
}

/// A string's content.
fn literal(tree: &Expr) -> Result<&str, RewriteError> {
    match unwrapped(tree) {
        Expr::StringLiteral(string) => Ok(&string.val),
        _ => Err(unsupported("label name that is no string".to_owned())),
    }
}

fn unsupported(what: String) -> RewriteError {
    RewriteError::Unsupported { what }
}
