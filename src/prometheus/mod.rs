//! The Prometheus beside us: a client for its HTTP API and the heartbeat that follows its state
//! (contract `prometheus.md` §1–5).
//!
//! What the rest of the process knows of Prometheus it reads from [`PeerWatch`]; the shipper only
//! gets the external labels. Nothing here is trusted to be small, fast or well-formed: each body
//! has a named limit, each call a time limit.

mod api;
mod authorization;
mod client;
mod error;
mod flags;
mod forward;
mod gauges;
mod heartbeat;
mod http_client;
mod labels;
mod labels_text;
mod metrics;
mod reload;
mod remote_read;
mod request;
mod snapshot;
mod spans;
mod state;
mod storage;
mod url;

#[cfg(any(fuzzing, test, feature = "testing"))]
pub use api::fuzz_query_answer;
pub use api::{
    API_TIME_MAX_MS, API_TIME_MIN_MS, ActiveTarget, AlertInstance, AlertingRule, Answer, ApiTime,
    DroppedTarget, Exemplar, ExemplarSeries, HeadStats, JsonError, MetricMeta,
    QUERY_ELEMENT_BYTES_MAX, QueryEndpoint, QueryStream, RecordingRule, ResultType, Rule,
    RuleGroup, RuleType, SERIES_OBJECT_BYTES_MAX, Scope, SeriesOrder, SeriesStream, Statistic,
    TargetState, Targets, TsdbStatus,
};
pub use authorization::Secret;
pub use client::{Client, Config, WalReplay};
pub use error::{PeerError, PeerErrorClass};
pub use flags::{FlagError, FlagExpectations, FlagWarning, validate_flags};
pub use forward::{Forwarded, ForwardedParams, ParamsPlace, is_label_asked, label_values_path};
pub use heartbeat::{Heartbeat, HeartbeatConfig, HeartbeatError};
pub use http_client::{HttpClientConfig, HttpClientConfigError};
pub use labels_text::LabelsText;
pub use metrics::PeerMetrics;
pub use reload::RuntimeInfo;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use remote_read::fuzz_remote_read;
pub use remote_read::{
    FRAME_BYTES_MAX, FloatSample, FrameError, FrameErrorKind, RemoteChunk, RemoteQuery, RemoteRead,
    RemoteSeries, SAMPLES_BYTES_MAX, SAMPLES_SERIES_MAX, SamplesError,
};
pub use state::{LabelsError, PeerFailure, PeerState, PeerWatch, await_labels};
pub use storage::{ListedBlocks, LoadedBlocks, PeerStorage};
pub use url::{BaseUrl, InvalidUrl};
