//! Object storage: the [`Bucket`] trait, its providers, and decorators around them.
//!
//! The configuration document and the semantics of each operation are those of the reference
//! (contract `objstore.md`). Decorators add what every provider needs: [`Instrumented`],
//! [`Prefixed`], [`Retrying`], in the order `Instrumented(Prefixed(Retrying(provider)))`.

mod azure;
mod bucket;
mod build;
mod config;
mod error;
mod filesystem;
#[cfg(any(test, feature = "testing"))]
mod flaky;
mod gcs;
mod instrument;
mod key;
mod local_access;
mod multipart;
mod pace;
mod prefix;
mod request_stats;
mod retry;
mod rsa;
mod s3;
mod small_file;
mod swift;
mod token;
mod vendors;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod testbed;

pub use azure::{AzureAccess, AzureConfigError, AzureCredentialsError, AzureSettings};
pub use bucket::{
    Attributes, Bucket, ByteRuns, ListEntry, Listing, Look, MemorySource, NoProgress, ObjectReader,
    SourceError, UploadProgress, UploadSource, Uploaded,
};
pub use build::{BucketDependencies, Variables, build};
pub use config::{BucketConfig, ConfigError, Provider};
pub use error::{BucketError, ErrorKind};
pub use filesystem::FilesystemBucket;
#[cfg(any(test, feature = "testing"))]
pub use flaky::{Flaky, Operation, Outcome};
pub use gcs::{GcsAccess, GcsConfigError, GcsSettings};
pub use instrument::{BucketMetrics, Instrumented};
pub use key::{InvalidKey, ObjectKey};
pub use local_access::LocalAccess;
pub use multipart::{MultipartState, PartPlan, SentPart};
pub use pace::Pace;
pub use prefix::Prefixed;
pub use request_stats::{LatencyHistogram, RequestStats, RequestTotals};
pub use retry::Retrying;
pub use rsa::{RsaKey, RsaKeyError};
pub use s3::{
    Addressing, CredentialsConfig, CredentialsError, Encryption, HttpConfig, InvalidMetadata,
    ListVersion, Mismatch, PayloadSigning, Refusal, S3_PART_BYTES_DEFAULT, S3Bucket, S3Config,
    S3ConfigError, S3Credentials, S3Error, S3Fault, S3Integrity, S3Limits, S3Settings, XmlError,
};
#[cfg(any(test, feature = "testing"))]
pub use s3::{
    Checksums, FakeS3, Fault, PlainHttp, SeenRequest, service_account, signed_headers, summed,
};
pub use swift::{SwiftAccess, SwiftConfigError, SwiftLogin, SwiftSettings};
pub use vendors::VendorConfigError;
