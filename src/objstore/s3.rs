//! S3 and everything that speaks it: requests written by hand over `net`'s HTTP client, since
//! what is sent, when it is signed and how often it is read decide what an upload costs.
//!
//! [`S3Bucket`] is the façade. Below it, `request` makes one request succeed (signature, retries,
//! region, clock skew, stalls), `upload` and `parts` make requests of an object, `integrity` says
//! how bytes are protected on the way, and `address`, `sign`, `xml` and `error` are plain
//! functions. `document` says what the configuration means, `transport` how connections are made,
//! `credentials` in whose name requests are signed.

mod address;
mod body;
mod bucket;
mod config;
mod credentials;
mod document;
mod error;
mod integrity;
mod list;
mod mend;
mod metadata;
mod object;
mod parts;
mod region;
mod request;
mod response;
mod sign;
mod trace;
mod transport;
mod upload;
mod wire;
mod xml;

#[cfg(any(test, feature = "testing"))]
mod testing;
#[cfg(test)]
mod tests;

pub(super) use address::uri_encoded;
pub use bucket::{S3Bucket, S3Limits};
pub use config::{
    Addressing, Encryption, ListVersion, PayloadSigning, S3_PART_BYTES_DEFAULT, S3Config,
};
pub(super) use credentials::{ChainSettings, CredentialFiles, ExchangeError, SdkClient};
pub use credentials::{CredentialsError, S3Credentials};
pub(super) use document::S3Keys;
pub use document::{CredentialsConfig, S3ConfigError, S3Settings};
pub use error::{Mismatch, Refusal, S3Error, S3Fault};
pub use integrity::S3Integrity;
pub(super) use integrity::{Sums, crc32c_text};
pub use metadata::InvalidMetadata;
pub(super) use object::text_header;
pub(super) use request::{Call, Reply};
#[cfg(any(test, feature = "testing"))]
pub use testing::{
    Checksums, FakeS3, Fault, PlainHttp, SeenRequest, service_account, signed_headers, summed,
};
#[cfg(test)]
pub(super) use tests::S3sServer;
pub use transport::HttpConfig;
pub(super) use transport::HttpKeys;
pub(super) use wire::{Mend, Parts, Protection, Query, S3Wire, Sending, Wire, octets};
pub use xml::XmlError;
pub(super) use xml::{ListPage, walk_in};
