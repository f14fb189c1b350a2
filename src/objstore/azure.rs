//! Azure Blob Storage (`type: AZURE`): block blobs through the REST API, in the name of a shared
//! key, of a shared access signature, or of an identity of Microsoft Entra.

mod connection;
mod credentials;
mod document;
mod sign;
mod wire;

pub(super) use credentials::AzureIdentity;
pub use credentials::{AzureAccess, AzureCredentialsError};
pub(super) use document::AzureKeys;
pub use document::{AzureConfigError, AzureSettings};
pub(super) use wire::AzureWire;

#[cfg(test)]
mod tests;
