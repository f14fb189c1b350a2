//! Transport without meaning: TLS, HTTP and gRPC, client and server. Knows no Thanos, S3 or
//! Prometheus.
//!
//! Every connection, body, header block and wait has a named limit, because both ends of this
//! module face peers that may be slow, broken or hostile.

pub mod grpc;
pub mod http;
mod listener;
mod tls;

pub use listener::ListenError;
use listener::Listener;
pub use tls::{
    ClientAuth, ClientTls, HttpsAcceptor, HttpsTls, PemSource, ServerTls, TlsCipher, TlsClient,
    TlsCurve, TlsError, TlsServer, TlsVersion, TlsWarning,
};
