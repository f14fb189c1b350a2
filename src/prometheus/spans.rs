//! Spans of questions to Prometheus, under the names that the reference's have.

use super::client::Client;
use crate::trace::Span;

impl Client {
    /// The span of a question about `path`, below what asks it; none where that is not traced.
    pub(super) fn span(&self, path: &str) -> Span {
        let span = Span::asking(name(path));
        span.note_with("http.url", || self.shown(path));
        span
    }
}

fn name(path: &str) -> &'static str {
    match path {
        "/api/v1/status/config" => "/prom_config HTTP[client]",
        "/api/v1/status/flags" => "/prom_flags HTTP[client]",
        "/api/v1/status/buildinfo" => "/prom_buildversion HTTP[client]",
        "/api/v1/labels" => "/prom_label_names HTTP[client]",
        "/api/v1/series" => "/prom_series HTTP[client]",
        "/api/v1/query" => "/prom_query_instant HTTP[client]",
        "/api/v1/query_range" => "/prom_query_range HTTP[client]",
        "/api/v1/rules" => "/prom_rules HTTP[client]",
        "/api/v1/alerts" => "/prom_alerts HTTP[client]",
        "/api/v1/targets" => "/prom_targets HTTP[client]",
        "/api/v1/metadata" => "/prom_metric_metadata HTTP[client]",
        "/api/v1/query_exemplars" => "/prom_exemplars HTTP[client]",
        "/api/v1/admin/tsdb/snapshot" => "/prom_snapshot HTTP[client]",
        "/api/v1/status/tsdb" => "/prom_tsdb_status HTTP[client]",
        path if path.starts_with("/api/v1/label/") => "/prom_label_values HTTP[client]",
        _ => "/prom HTTP[client]",
    }
}
