//! The messages on the wire, generated from `proto/` (contract `grpc.md` §2, §5), and their
//! descriptors for reflection.
//!
//! Bytes fields are `Bytes`: views of the message that they were read from.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    reason = "generated code; the fields are described in the .proto files"
)]

/// StoreAPI and the other services of Thanos.
pub mod thanos {
    include!(concat!(env!("OUT_DIR"), "/thanos.rs"));

    /// What a component is.
    pub mod info {
        include!(concat!(env!("OUT_DIR"), "/thanos.info.rs"));
    }
}

/// Series of query results.
pub mod prometheus_copy {
    include!(concat!(env!("OUT_DIR"), "/prometheus_copy.rs"));
}

/// Remote read.
pub mod prometheus {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));
}

/// Services that every gRPC server offers.
pub mod grpc {
    /// Health checks.
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }

    /// Reflection. Its forerunner v1alpha has the same messages, so these serve both.
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// Every message and service of `proto/`: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
