//! HTTP, both ends: a pooled client for Prometheus and object stores, and a small server.

mod body;
mod client;
mod connect;
mod direct;
mod error;
mod no_proxy;
mod proxy;
#[cfg(test)]
mod scripted;
mod server;

pub use body::{BodyLimit, RequestBody, ResponseBody, decoded, empty_body, full_body};
pub use client::{ClientConfig, HttpClient};
pub use direct::{Coalesce, DirectBody, DirectClient};
pub use error::HttpError;
pub use proxy::{InvalidProxy, InvalidProxyVariable, Proxy, percent_decoded};
#[cfg(test)]
pub(crate) use scripted::{Reply, ScriptedServer, Seen, StoppedClock, TestCa, response, until};
pub use server::{
    CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADER_READ_TIMEOUT, HttpServer, HttpTransport,
    TLS_HANDSHAKE_TIMEOUT,
};
