//! Object storage: the [`Bucket`] trait, its providers, and decorators around them.
//!
//! The configuration document and the semantics of each operation are those of the reference
//! (contract `objstore.md`). Decorators add what every provider needs: [`Instrumented`],
//! [`Prefixed`], [`Retrying`], in the order `Instrumented(Prefixed(Retrying(provider)))`.

mod bucket;
mod config;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake_s3;
mod filesystem;
#[cfg(any(test, feature = "testing"))]
mod flaky;
mod instrument;
mod key;
mod multipart;
mod prefix;
mod retry;
mod s3;

#[cfg(test)]
mod conformance;

pub use bucket::{
    Attributes, Bucket, ByteRuns, ListEntry, Listing, MemorySource, NoProgress, ObjectReader,
    SourceError, UploadProgress, UploadSource, Uploaded,
};
pub use config::{BucketConfig, ConfigError, Provider, build};
pub use error::{BucketError, ErrorKind};
#[cfg(any(test, feature = "testing"))]
pub use fake_s3::{FakeS3, S3Checksums, S3Fault, S3Manners, S3Request, S3RequestKind};
pub use filesystem::FilesystemBucket;
#[cfg(any(test, feature = "testing"))]
pub use flaky::{Flaky, Operation, Outcome};
pub use instrument::{BucketMetrics, Instrumented};
pub use key::{InvalidKey, ObjectKey};
pub use multipart::{MultipartState, PartPlan, SentPart};
pub use prefix::Prefixed;
pub use retry::Retrying;
pub use s3::{
    Addressing, Encryption, ListVersion, PayloadSigning, S3_PART_BYTES_DEFAULT, S3Config,
};
