//! What the process shows of itself: thin adapters from requests to what the other modules know.

mod grpc;
mod http;
mod metrics;
mod process;
mod query;
mod request_logging;
mod status;
mod web;

pub use grpc::{GrpcDependencies, GrpcServices, QUERY_METHODS, THANOS_METHODS};
pub use http::Endpoints;
pub use metrics::{Exposition, ExpositionError, Format, render};
pub use process::{BuildInfo, ProcessCollector};
pub use query::{AnswerBody, BrokenOff, QueryApi, QueryApiConfig};
pub use request_logging::{RequestLoggingError, request_log};
pub use status::{IoReading, ShippingSource, StatusSources};
pub use web::{WebAccess, WebConfigError, WebDocumentError};
