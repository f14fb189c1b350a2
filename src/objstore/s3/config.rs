//! What an S3 bucket is told, after its configuration document was read (contract `objstore.md`
//! §2).

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use http::{HeaderName, HeaderValue};

/// Size of a part where the document does not say: a part is held in memory while it is sent.
pub const S3_PART_BYTES_DEFAULT: NonZeroU64 = NonZeroU64::new(8 << 20).expect("not zero");

/// The settings of an S3 bucket, but for credentials and transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// `host[:port]`.
    pub endpoint: String,
    /// The region; `None` to find out.
    pub region: Option<String>,
    /// Whether amazonaws.com endpoints become their dual-stack form.
    pub dualstack: bool,
    /// Plain HTTP.
    pub insecure: bool,
    /// Where the bucket's name stands in a URL.
    pub addressing: Addressing,
    /// Which listing request is used.
    pub list_version: ListVersion,
    /// Sent with every upload: standard headers as they are, the rest as `x-amz-meta-…`.
    pub put_headers: Vec<(HeaderName, HeaderValue)>,
    /// The storage class of what is uploaded.
    pub storage_class: Option<HeaderValue>,
    /// `Content-MD5`, where it is set explicitly.
    pub send_content_md5: Option<bool>,
    /// Every object in one request.
    pub disable_multipart: bool,
    /// Size from which an object is sent in parts, and of each part.
    pub part_bytes: NonZeroU64,
    /// Encryption at the server.
    pub encryption: Encryption,
    /// Tries of one request, the first included.
    pub attempts_max: NonZeroU32,
    /// Every request and response is logged at debug level, without secrets.
    pub trace: bool,
    /// Whether bodies are hashed for the signature.
    pub payload_signing: PayloadSigning,
}

impl S3Config {
    /// Of a bucket over TLS with nothing special about it. `max_retries`: tries of a request;
    /// zero and below mean the default.
    pub(in crate::objstore) fn plain(
        bucket: &str,
        endpoint: &str,
        max_retries: Option<i64>,
    ) -> Self {
        Self {
            bucket: bucket.to_owned(),
            endpoint: endpoint.to_owned(),
            region: None,
            dualstack: false,
            insecure: false,
            addressing: Addressing::Path,
            list_version: ListVersion::V2,
            put_headers: Vec::new(),
            storage_class: None,
            send_content_md5: None,
            disable_multipart: false,
            part_bytes: S3_PART_BYTES_DEFAULT,
            encryption: Encryption::None,
            attempts_max: super::document::attempts(max_retries),
            trace: false,
            payload_signing: PayloadSigning::default(),
        }
    }

    /// Cuts objects into parts of so many bytes; zero means the default.
    pub(in crate::objstore) fn set_part_bytes(&mut self, bytes: u64) {
        self.part_bytes = NonZeroU64::new(bytes).unwrap_or(S3_PART_BYTES_DEFAULT);
    }
}

/// `bucket_lookup_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Virtual-hosted for hosts known to want it, else path.
    #[default]
    Auto,
    /// `https://bucket.host/key`.
    VirtualHosted,
    /// `https://host/bucket/key`.
    Path,
}

/// `list_objects_version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListVersion {
    /// ListObjects.
    V1,
    /// ListObjectsV2.
    #[default]
    V2,
}

/// `sse_config`.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// The bucket's own default.
    #[default]
    None,
    /// SSE-S3.
    S3,
    /// SSE-KMS.
    Kms {
        /// The key's id.
        key_id: HeaderValue,
        /// The encryption context; an empty one is sent as `{}`.
        context: BTreeMap<String, String>,
    },
    /// SSE-C, with the raw key.
    Customer {
        /// 256 bits.
        key: [u8; 32],
    },
}

/// `--s3.payload-signing`: whether the signature covers a SHA-256 of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadSigning {
    /// Over plain HTTP; TLS protects bodies by itself.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::S3 => f.write_str("S3"),
            Self::Kms { key_id, context } => f
                .debug_struct("Kms")
                .field("key_id", key_id)
                .field("context", context)
                .finish(),
            Self::Customer { .. } => f.debug_struct("Customer").finish_non_exhaustive(),
        }
    }
}
