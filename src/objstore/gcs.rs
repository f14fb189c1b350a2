//! Google Cloud Storage (`type: GCS`), through its XML API: in form that of S3, with tokens of
//! Google's identity service instead of signatures and CRC-32C instead of CRC-64.

mod credentials;
mod document;
mod wire;

pub use credentials::GcsAccess;
pub(super) use credentials::GcsIdentity;
pub(super) use document::GcsKeys;
pub use document::{GcsConfigError, GcsSettings};
pub(super) use wire::GcsWire;

#[cfg(test)]
mod tests;
