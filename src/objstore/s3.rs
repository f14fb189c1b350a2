//! S3 and everything that speaks it.

mod config;

pub use config::{
    Addressing, Encryption, ListVersion, PayloadSigning, S3_PART_BYTES_DEFAULT, S3Config,
};
