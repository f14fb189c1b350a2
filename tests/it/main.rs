//! Integration tests: the binary beside a real Prometheus, or beside a scripted one for faults.
//!
//! One binary, so that it links once and its tests run in parallel. Every test has a scratch
//! directory, ports chosen by the kernel and processes that end with it; waiting is for a
//! condition, with a deadline that passes only where something is broken.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may end at once, and reads environment and clock itself"
)]

mod bad_input;
mod bench;
mod block;
mod cli;
mod confinement;
mod docs;
mod flush;
mod golden;
mod grpc;
mod ledger;
mod metrics;
mod packages;
mod query;
mod query_api;
mod query_grpc;
mod reloader;
mod remote_read;
mod s3;
mod shipping;
mod shutdown;
mod startup;
mod status;
mod store;
mod stores;
mod support;
mod traces;
mod web;
