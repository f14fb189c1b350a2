//! Transport without meaning: TLS, HTTP client and server. Knows no Thanos, S3 or Prometheus.
//!
//! Every connection, body, header block and wait has a named limit, because both ends of this
//! module face peers that may be slow, broken or hostile.

pub mod http;
mod tls;

pub use tls::{ClientTls, TlsClient, TlsError};
