//! What Prometheus answers, as plain values. Keys that are not here are passed over, and those that
//! a version lacks are empty.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// `data` of `/api/v1/rules`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Groups {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) groups: Vec<RuleGroup>,
}

/// A time of the API, as protobuf's `Timestamp` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiTime {
    /// Seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanos: i32,
}

/// A group of rules.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleGroup {
    /// Its name.
    pub name: String,
    /// The file that it is from.
    pub file: String,
    /// Its rules.
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<Rule>,
    /// How often it is evaluated, in seconds.
    pub interval: f64,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When that was.
    pub last_evaluation: ApiTime,
    /// How many series or alerts a rule may make; 0 for any number.
    pub limit: i64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "FlatRule")]
pub enum Rule {
    /// It alerts.
    Alerting(AlertingRule),
    /// It records.
    Recording(RecordingRule),
}

/// A rule that alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertingRule {
    /// `inactive`, `pending` or `firing`, or as newer versions have it.
    pub state: String,
    /// Its name.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// How long it must hold, in seconds.
    pub duration: f64,
    /// How long it fires on, in seconds.
    pub keep_firing_for: f64,
    /// The labels it adds.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it alerts of now.
    pub alerts: Vec<AlertInstance>,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// The last error, or nothing.
    pub last_error: String,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When that was.
    pub last_evaluation: ApiTime,
}

/// A rule that records.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingRule {
    /// The metric it makes.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// The labels it adds.
    pub labels: BTreeMap<String, String>,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// The last error, or nothing.
    pub last_error: String,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When that was.
    pub last_evaluation: ApiTime,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AlertInstance {
    /// Its labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// As that of the rule.
    pub state: String,
    /// Since when.
    pub active_at: Option<ApiTime>,
    /// The expression's value, as text.
    pub value: String,
}

/// Both kinds, as the API has them.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FlatRule {
    r#type: String,
    state: String,
    name: String,
    query: String,
    duration: f64,
    keep_firing_for: f64,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    alerts: Vec<AlertInstance>,
    health: String,
    last_error: String,
    evaluation_time: f64,
    last_evaluation: ApiTime,
}

/// What is scraped, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Targets {
    /// What is scraped.
    #[serde(deserialize_with = "or_default")]
    pub active_targets: Vec<ActiveTarget>,
    /// What relabelling dropped.
    #[serde(deserialize_with = "or_default")]
    pub dropped_targets: Vec<DroppedTarget>,
}

/// A target that is scraped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ActiveTarget {
    /// Before relabelling.
    #[serde(deserialize_with = "or_default")]
    pub discovered_labels: BTreeMap<String, String>,
    /// After it.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// The scrape configuration's name.
    pub scrape_pool: String,
    /// The URL scraped.
    pub scrape_url: String,
    /// The same as seen from outside.
    pub global_url: String,
    /// The last error, or nothing.
    pub last_error: String,
    /// When it was scraped last.
    pub last_scrape: ApiTime,
    /// How long that took, in seconds.
    pub last_scrape_duration: f64,
    /// `up`, `down` or `unknown`.
    pub health: String,
}

/// A target that relabelling dropped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DroppedTarget {
    /// Before relabelling.
    #[serde(deserialize_with = "or_default")]
    pub discovered_labels: BTreeMap<String, String>,
}

/// What a target says of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MetricMeta {
    /// `counter`, `gauge` and so on.
    pub r#type: String,
    /// Its help.
    pub help: String,
    /// Its unit, or nothing.
    pub unit: String,
}

/// The exemplars of a series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExemplarSeries {
    /// Whose they are.
    #[serde(deserialize_with = "or_default")]
    pub series_labels: BTreeMap<String, String>,
    /// By time.
    #[serde(deserialize_with = "or_default")]
    pub exemplars: Vec<Exemplar>,
}

/// An exemplar.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Exemplar {
    /// Its own labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its value.
    #[serde(deserialize_with = "float_text")]
    pub value: f64,
    /// When, ms since the epoch.
    #[serde(rename = "timestamp", deserialize_with = "seconds_as_ms")]
    pub t_ms: i64,
}

/// Statistics of the head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TsdbStatus {
    /// Of the head as a whole.
    pub head_stats: HeadStats,
    /// The metrics with most series.
    #[serde(deserialize_with = "or_default")]
    pub series_count_by_metric_name: Vec<Statistic>,
    /// The labels with most values.
    #[serde(deserialize_with = "or_default")]
    pub label_value_count_by_label_name: Vec<Statistic>,
    /// The labels whose values take most memory, in bytes.
    #[serde(deserialize_with = "or_default")]
    pub memory_in_bytes_by_label_name: Vec<Statistic>,
    /// The pairs (`name=value`) with most series.
    #[serde(deserialize_with = "or_default")]
    pub series_count_by_label_value_pair: Vec<Statistic>,
}

/// The head as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeadStats {
    /// Its series.
    pub num_series: u64,
    /// Its distinct pairs of label name and value.
    pub num_label_pairs: i64,
    /// Its chunks.
    pub chunk_count: i64,
    /// Its first sample, ms since the epoch.
    pub min_time: i64,
    /// Its last sample, ms since the epoch.
    pub max_time: i64,
}

/// One entry of a list of statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Statistic {
    /// Of what.
    pub name: String,
    /// How much.
    pub value: u64,
}

impl TryFrom<FlatRule> for Rule {
    type Error = String;

    fn try_from(rule: FlatRule) -> Result<Self, String> {
        match rule.r#type.to_ascii_lowercase().as_str() {
            "alerting" => Ok(Self::Alerting(AlertingRule {
                state: rule.state,
                name: rule.name,
                query: rule.query,
                duration: rule.duration,
                keep_firing_for: rule.keep_firing_for,
                labels: rule.labels,
                annotations: rule.annotations,
                alerts: rule.alerts,
                health: rule.health,
                last_error: rule.last_error,
                evaluation_time: rule.evaluation_time,
                last_evaluation: rule.last_evaluation,
            })),
            "recording" => Ok(Self::Recording(RecordingRule {
                name: rule.name,
                query: rule.query,
                labels: rule.labels,
                health: rule.health,
                last_error: rule.last_error,
                evaluation_time: rule.evaluation_time,
                last_evaluation: rule.last_evaluation,
            })),
            _ => Err(format!("a rule has the unknown type `{}`", rule.r#type)),
        }
    }
}

// === Values ===

impl Default for ApiTime {
    /// Go's zero time, which is what Prometheus gives for "never".
    fn default() -> Self {
        Self {
            seconds: -62_135_596_800,
            nanos: 0,
        }
    }
}

impl<'de> Deserialize<'de> for ApiTime {
    /// RFC 3339.
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text = String::deserialize(reader)?;
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        // Counted towards the epoch, on either side of it.
        let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
        Ok(match nanos < 0 {
            true => Self {
                seconds: seconds.saturating_sub(1),
                nanos: nanos.saturating_add(1_000_000_000),
            },
            false => Self { seconds, nanos },
        })
    }
}

/// Go prints lists and maps that were never made as null.
fn or_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

fn float_text<'de, D: Deserializer<'de>>(reader: D) -> Result<f64, D::Error> {
    let text = String::deserialize(reader)?;
    text.parse().map_err(D::Error::custom)
}

fn seconds_as_ms<'de, D: Deserializer<'de>>(reader: D) -> Result<i64, D::Error> {
    let ms = (f64::deserialize(reader)? * 1000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and the range is checked; beyond it the cast saturates anyway"
    )]
    match ms.abs() < 9.2e18 {
        true => Ok(ms as i64),
        false => Err(D::Error::custom("a time is out of range")),
    }
}
