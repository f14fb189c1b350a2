//! Functions, operators and modifiers of PromQL, and which of them a Prometheus knows.

use super::api::{Answer, Api, When};

/// A function and its arguments: `v`ector, `m`atrix, `s`calar, `t`ext; what follows `?` may be
/// left out. Those with `*` have expressions of their own in the generator.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) arguments: &'static str,
    pub(super) returns: char,
}

const fn function(name: &'static str, arguments: &'static str, returns: char) -> Function {
    Function {
        name,
        arguments,
        returns,
    }
}

/// Those of 2.42 and 3.14, the names since dropped too.
pub(super) const FUNCTIONS: &[Function] = &[
    function("abs", "v", 'v'),
    function("absent", "*v", 'v'),
    function("absent_over_time", "*m", 'v'),
    function("acos", "v", 'v'),
    function("acosh", "v", 'v'),
    function("asin", "v", 'v'),
    function("asinh", "v", 'v'),
    function("atan", "v", 'v'),
    function("atanh", "v", 'v'),
    function("avg_over_time", "m", 'v'),
    function("ceil", "v", 'v'),
    function("changes", "m", 'v'),
    function("clamp", "vss", 'v'),
    function("clamp_max", "vs", 'v'),
    function("clamp_min", "vs", 'v'),
    function("cos", "v", 'v'),
    function("cosh", "v", 'v'),
    function("count_over_time", "m", 'v'),
    function("day_of_month", "?v", 'v'),
    function("day_of_week", "?v", 'v'),
    function("day_of_year", "?v", 'v'),
    function("days_in_month", "?v", 'v'),
    function("deg", "v", 'v'),
    function("delta", "m", 'v'),
    function("deriv", "m", 'v'),
    function("double_exponential_smoothing", "*mss", 'v'),
    function("end", "", 's'),
    function("exp", "v", 'v'),
    function("first_over_time", "m", 'v'),
    function("floor", "v", 'v'),
    function("histogram_avg", "*v", 'v'),
    function("histogram_count", "*v", 'v'),
    function("histogram_fraction", "*ssv", 'v'),
    function("histogram_quantile", "*sv", 'v'),
    function("histogram_quantiles", "*vts", 'v'),
    function("histogram_stddev", "*v", 'v'),
    function("histogram_stdvar", "*v", 'v'),
    function("histogram_sum", "*v", 'v'),
    function("holt_winters", "*mss", 'v'),
    function("hour", "?v", 'v'),
    function("idelta", "m", 'v'),
    function("increase", "m", 'v'),
    function("info", "*v", 'v'),
    function("irate", "m", 'v'),
    function("label_join", "*vttt", 'v'),
    function("label_replace", "*vtttt", 'v'),
    function("last_over_time", "m", 'v'),
    function("ln", "v", 'v'),
    function("log10", "v", 'v'),
    function("log2", "v", 'v'),
    function("mad_over_time", "m", 'v'),
    function("max_of", "ss", 's'),
    function("max_over_time", "m", 'v'),
    function("min_of", "ss", 's'),
    function("min_over_time", "m", 'v'),
    function("minute", "?v", 'v'),
    function("month", "?v", 'v'),
    function("pi", "", 's'),
    function("predict_linear", "ms", 'v'),
    function("present_over_time", "m", 'v'),
    function("quantile_over_time", "sm", 'v'),
    function("rad", "v", 'v'),
    function("range", "", 's'),
    function("rate", "m", 'v'),
    function("resets", "m", 'v'),
    function("round", "v?s", 'v'),
    function("scalar", "v", 's'),
    function("sgn", "v", 'v'),
    function("sin", "v", 'v'),
    function("sinh", "v", 'v'),
    function("sort", "v", 'v'),
    function("sort_by_label", "*vt", 'v'),
    function("sort_by_label_desc", "*vt", 'v'),
    function("sort_desc", "v", 'v'),
    function("sqrt", "v", 'v'),
    function("start", "", 's'),
    function("start_timestamp", "v", 'v'),
    function("stddev_over_time", "m", 'v'),
    function("stdvar_over_time", "m", 'v'),
    function("step", "", 's'),
    function("sum_over_time", "m", 'v'),
    function("tan", "v", 'v'),
    function("tanh", "v", 'v'),
    function("time", "", 's'),
    function("timestamp", "v", 'v'),
    function("ts_of_first_over_time", "m", 'v'),
    function("ts_of_last_over_time", "m", 'v'),
    function("ts_of_max_over_time", "m", 'v'),
    function("ts_of_min_over_time", "m", 'v'),
    function("vector", "s", 'v'),
    function("year", "?v", 'v'),
];

pub(super) const AGGREGATIONS: &[&str] = &[
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "limit_ratio",
    "limitk",
    "max",
    "min",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
];
pub(super) const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
pub(super) const COMPARISONS: &[&str] = &["==", "!=", ">", "<", ">=", "<="];
pub(super) const SETS: &[&str] = &["and", "or", "unless"];

/// What one Prometheus knows.
pub(super) struct Dialect {
    pub(super) functions: Vec<&'static Function>,
    pub(super) aggregations: Vec<&'static str>,
    pub(super) has_utf8: bool,
    /// `anchored` and `smoothed` behind selectors.
    pub(super) has_extended_selectors: bool,
    /// `fill`, `fill_left` and `fill_right` of operators.
    pub(super) has_fill: bool,
    /// Calculations where a duration stands.
    pub(super) has_duration_expressions: bool,
}

impl Dialect {
    /// Asks for each construct whether it is one.
    pub(super) fn of(api: &mut Api, has_utf8: bool) -> Self {
        let mut knows = |query: &str| -> bool {
            let when = When::At("1".to_owned());
            let answer: Answer = api.query(&when, query, &[]);
            answer.kind.is_ok_and(|_| true)
        };
        let functions = FUNCTIONS.iter().filter(|function| knows(&least(function)));
        let functions = functions.collect();
        let aggregations = AGGREGATIONS.iter().copied().filter(|name| match *name {
            "count_values" => knows("count_values(\"x\",up)"),
            "bottomk" | "limit_ratio" | "limitk" | "quantile" | "topk" => {
                knows(&format!("{name}(1,up)"))
            }
            _ => knows(&format!("{name}(up)")),
        });
        Self {
            functions,
            aggregations: aggregations.collect(),
            has_utf8,
            has_extended_selectors: knows("rate(up[1m] anchored)"),
            has_fill: knows("up + fill(0) up"),
            has_duration_expressions: knows("up offset (1m * 2)"),
        }
    }
}

/// A call that is right wherever the function is known.
fn least(function: &Function) -> String {
    let texts = match function.name {
        "label_replace" => &["\"x\"", "\"\"", "\"y\"", "\"\""][..],
        _ => &["\"x\"", "\"y\"", "\"z\"", "\"z\""],
    };
    let mut texts = texts.iter();
    let arguments = function.arguments.chars().filter_map(|kind| match kind {
        'v' => Some("up"),
        'm' => Some("up[1m]"),
        's' => Some("0.5"),
        't' => texts.next().copied(),
        _ => None,
    });
    let arguments: Vec<_> = arguments.collect();
    format!("{}({})", function.name, arguments.join(","))
}
