//! What a request asks of the engine: our own parameters are read and checked here, Prometheus' go
//! to it as they are.

use std::str::FromStr as _;
use std::time::Duration;

use super::error::ApiError;
use super::form::Form;
use crate::model::{Matcher, PromDuration};
use crate::query::{Evaluation, EvaluationKind, selector_matchers};

/// What Prometheus takes of a query, but the expression.
const OF_INSTANT: &[&str] = &["time", "timeout", "lookback_delta", "stats", "limit"];
const OF_RANGE: &[&str] = &[
    "start",
    "end",
    "step",
    "timeout",
    "lookback_delta",
    "stats",
    "limit",
];
/// Parameters of Thanos' API, which Prometheus does not get.
const OWN: &[&str] = &[
    "dedup",
    "replicaLabels[]",
    "partial_response",
    "max_source_resolution",
    "storeMatch[]",
    "engine",
];
/// How many points a range query without a step has at most, as on `thanos query`.
const DEFAULT_POINTS: u64 = 250;
/// The most selectors of `storeMatch[]`.
const STORE_MATCHES_MAX: usize = 100;
/// The most matchers in one of them; each pattern is compiled.
const MATCHERS_MAX: usize = 20;
/// What a query's own timeout is prolonged by here, so that it is Prometheus that tells of it.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// What the flags say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// `--query.default-step`.
    pub(super) step: Duration,
}

/// Whether Prometheus gets a parameter of this name.
pub(super) fn is_forwarded(name: &[u8]) -> bool {
    !OWN.iter().any(|own| own.as_bytes() == name)
}

/// A query, or the parameters of ours that are wrong. `None` where the text, or a parameter that
/// Prometheus would see, is no UTF-8: then it is not ours to say what is wrong.
pub(super) fn evaluation(
    kind: EvaluationKind,
    form: &Form,
    defaults: Defaults,
) -> Result<Option<Evaluation>, ApiError> {
    let replica_labels = replica_labels(form)?;
    let store_matchers = store_matchers(form)?;
    check_own(form)?;
    let names = match kind {
        EvaluationKind::Instant => OF_INSTANT,
        EvaluationKind::Range => OF_RANGE,
    };
    let Ok(query) = String::from_utf8(form.first("query").to_owned()) else {
        return Ok(None);
    };
    let mut params = Vec::new();
    for &name in names {
        match String::from_utf8(form.first(name).to_owned()) {
            Ok(value) if !value.is_empty() => params.push((name, value)),
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
    if kind == EvaluationKind::Range && form.first("step").is_empty() {
        params.push(("step", default_step(form, defaults.step)));
    }
    let timeout = duration(&form.text("timeout")).filter(|timeout| !timeout.is_zero());
    Ok(Some(Evaluation {
        kind,
        query,
        params,
        replica_labels,
        store_matchers,
        timeout: timeout.map(|timeout| timeout.saturating_add(TIMEOUT_SLACK)),
    }))
}

/// How much text a query holds, in bytes.
pub(super) fn held_bytes(of: &Evaluation) -> usize {
    let params = of.params.iter().map(|(_, value)| value.len());
    let replicas = of.replica_labels.iter().flatten().map(String::len);
    let matchers = of.store_matchers.iter().flatten();
    let matchers = matchers.map(|m| size_of::<Matcher>() + m.name.len() + m.value.len());
    of.query.len() + params.chain(replicas).chain(matchers).sum::<usize>()
}

/// The labels that the result shall not carry; `None` is for those of the flag.
fn replica_labels(form: &Form) -> Result<Option<Vec<String>>, ApiError> {
    if !boolean(form, "dedup", true)? {
        return Ok(Some(Vec::new()));
    }
    let named: Vec<String> = form
        .all("replicaLabels[]")
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    Ok((!named.is_empty()).then_some(named))
}

/// The selectors of which one has to match the external labels.
pub(super) fn store_matchers(form: &Form) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let selectors: Vec<&[u8]> = form.all("storeMatch[]").collect();
    let wrong = |why: &str| ApiError::parameter("storeMatch[]", why);
    if selectors.len() > STORE_MATCHES_MAX {
        return Err(wrong(&format!("more than {STORE_MATCHES_MAX} selectors")));
    }
    let selectors = selectors.into_iter().map(|selector| {
        let text = std::str::from_utf8(selector).map_err(|_| wrong("it is not UTF-8"))?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let matchers = selector_matchers(text).map_err(|error| wrong(&error.to_string()))?;
        if matchers.len() > MATCHERS_MAX {
            return Err(wrong(&format!("more than {MATCHERS_MAX} matchers")));
        }
        for matcher in &matchers {
            let pattern = matcher.matches("");
            pattern.map_err(|error| wrong(&error.to_string()))?;
        }
        Ok(matchers)
    });
    selectors.collect()
}

/// Parameters that change nothing here, but may be wrong.
fn check_own(form: &Form) -> Result<(), ApiError> {
    boolean(form, "partial_response", true)?;
    let resolution = "max_source_resolution";
    let text = form.text(resolution);
    let is_known = matches!(&*text, "" | "auto") || duration(&text).is_some();
    if !is_known {
        let why = format!("cannot parse {text:?} to a valid duration");
        return Err(ApiError::parameter(resolution, &why));
    }
    let engine = form.text("engine");
    match &*engine {
        "" | "prometheus" | "thanos" => Ok(()),
        _ => {
            let why = format!("{engine:?} is neither prometheus nor thanos");
            Err(ApiError::parameter("engine", &why))
        }
    }
}

/// A truth value in any of Go's spellings.
fn boolean(form: &Form, name: &str, default: bool) -> Result<bool, ApiError> {
    let text = form.text(name);
    match &*text {
        "" => Ok(default),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => {
            let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
            Err(ApiError::parameter(name, &why))
        }
    }
}

/// A duration as the API has it, seconds or with units; `None` where it is none, or below zero.
fn duration(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => PromDuration::from_str(text).ok().map(PromDuration::to_std),
    }
}

/// As on `thanos query`. Times that can't be read are Prometheus' to complain of.
fn default_step(form: &Form, least: Duration) -> String {
    let range = match (time(&form.text("start")), time(&form.text("end"))) {
        (Some(start), Some(end)) => Duration::try_from_secs_f64(end - start).ok(),
        _ => None,
    };
    let seconds = range.unwrap_or_default().as_secs() / DEFAULT_POINTS;
    let step = Duration::from_secs(seconds).max(least);
    step.as_secs_f64().to_string()
}

/// A time as the API has it, in seconds since the epoch.
fn time(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        step: Duration::from_secs(1),
    };

    fn asked(kind: EvaluationKind, query: &str) -> Result<Option<Evaluation>, String> {
        evaluation(kind, &Form::of(query), DEFAULTS).map_err(|error| error.to_string())
    }

    fn instant(query: &str) -> Evaluation {
        asked(EvaluationKind::Instant, query).unwrap().unwrap()
    }

    fn refused(query: &str) -> String {
        asked(EvaluationKind::Instant, query).unwrap_err()
    }

    #[test]
    fn prometheus_parameters_go_as_they_are_and_unknown_ones_do_not() {
        let asked = instant("query=up&time=soon&stats=all&x=1&limit=-3&start=5&lookback_delta=");
        assert_eq!(asked.query, "up");
        let expected = [("time", "soon"), ("stats", "all"), ("limit", "-3")];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(asked.params, expected);
        assert_eq!((asked.timeout, asked.replica_labels), (None, None));
        assert!(asked.store_matchers.is_empty());
    }

    #[test]
    fn replica_labels_are_the_requests_or_the_flags_or_none() {
        let of = |query: &str| instant(query).replica_labels;
        assert_eq!(of("query=up&dedup=true"), None);
        assert_eq!(
            of("replicaLabels[]=a&replicaLabels[]=b").unwrap(),
            ["a", "b"]
        );
        for off in ["0", "f", "F", "FALSE", "false", "False"] {
            let query = format!("dedup={off}&replicaLabels[]=a");
            assert_eq!(of(&query), Some(Vec::new()), "{off}");
        }
        for on in ["1", "t", "T", "TRUE", "true", "True", ""] {
            assert_eq!(of(&format!("dedup={on}")), None, "{on}");
        }
    }

    #[test]
    fn our_own_parameters_are_checked() {
        for (query, expected) in [
            (
                "dedup=yes",
                "invalid parameter \"dedup\": strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                "partial_response=2",
                "invalid parameter \"partial_response\": strconv.ParseBool: parsing \"2\": \
                 invalid syntax",
            ),
            (
                "max_source_resolution=-1",
                "invalid parameter \"max_source_resolution\": cannot parse \"-1\" to a valid \
                 duration",
            ),
            (
                "engine=x",
                "invalid parameter \"engine\": \"x\" is neither prometheus nor thanos",
            ),
        ] {
            assert_eq!(refused(query), expected);
        }
        for bad in ["{a=", "rate(x[1m])", "{a=~\"(\"}", "%ff"] {
            let told = refused(&format!("storeMatch[]={bad}"));
            assert!(
                told.starts_with("invalid parameter \"storeMatch[]\": "),
                "{told}"
            );
        }
        let many = "storeMatch[]=x&".repeat(STORE_MATCHES_MAX + 1);
        assert!(refused(&many).contains("more than 100"));
        for good in ["auto", "5m", "0", "3600", "1h30m"] {
            instant(&format!("max_source_resolution={good}&engine=thanos"));
        }
        let asked = instant("storeMatch[]={a=\"b\",c!~\"d\"}");
        let shown: Vec<String> = asked.store_matchers[0]
            .iter()
            .map(|m| m.to_string())
            .collect();
        assert_eq!(shown, ["a=\"b\"", "c!~\"d\""]);
    }

    #[test]
    fn a_step_is_made_where_there_is_none() {
        for (query, step) in [
            ("start=0&end=1000&step=7", "7"),
            ("start=0&end=1000", "4"),
            ("start=0&end=100", "1"),
            (
                "start=1970-01-01T00:00:00Z&end=1970-01-01T01:00:00.5Z",
                "14",
            ),
            ("start=0", "1"),
            ("start=9&end=1", "1"),
            ("start=-inf&end=NaN", "1"),
        ] {
            let asked = asked(EvaluationKind::Range, query).unwrap().unwrap();
            let told = asked.params.iter().find(|(name, _)| *name == "step");
            assert_eq!(told.unwrap().1, step, "{query}");
        }
        let defaults = Defaults {
            step: Duration::from_millis(1500),
        };
        assert_eq!(
            default_step(&Form::of("start=0&end=1"), defaults.step),
            "1.5"
        );
    }

    #[test]
    fn a_querys_own_timeout_counts_here_a_little_later() {
        for (text, seconds) in [("5", Some(6)), ("1m", Some(61)), ("x", None), ("-1", None)] {
            let timeout = instant(&format!("timeout={text}")).timeout;
            assert_eq!(timeout.map(|timeout| timeout.as_secs()), seconds, "{text}");
        }
        assert_eq!(instant("timeout=0").timeout, None);
    }

    #[test]
    fn what_is_no_utf8_is_left_to_prometheus() {
        for query in ["query=%ff", "query=up&time=%ff"] {
            assert!(asked(EvaluationKind::Instant, query).unwrap().is_none());
        }
        assert!(
            asked(EvaluationKind::Instant, "query=up&x=%ff")
                .unwrap()
                .is_some()
        );
    }
}
