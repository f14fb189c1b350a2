//! The Prometheus beside us: a client for its HTTP API and the heartbeat that follows its state
//! (contract `prometheus.md` §1–5).
//!
//! What the rest of the process knows of Prometheus it reads from [`PeerWatch`]; the shipper only
//! gets the external labels. Nothing here is trusted to be small, fast or well-formed: each body
//! has a named limit, each call a time limit.

mod authorization;
mod client;
mod document;
mod error;
mod flags;
mod heartbeat;
mod http_client;
mod labels;
mod lowest;
mod metrics;
mod state;
mod url;

pub use authorization::Secret;
pub use client::{Client, Config, WalReplay};
pub use document::UnknownKey;
pub use error::PeerError;
pub use flags::{FlagError, FlagExpectations, FlagWarning, validate_flags};
pub use heartbeat::{Heartbeat, HeartbeatConfig, HeartbeatError};
pub use http_client::{HttpClientConfig, HttpClientConfigError};
pub use metrics::PeerMetrics;
pub use state::{LabelsError, PeerState, PeerWatch, await_labels};
pub use url::{BaseUrl, InvalidUrl};
