//! outrigger: a sidecar for one large Prometheus on Linux.
//!
//! The crate is layered; imports go down only, and `tests/tidy.rs` fails when they do not.
//! `ARCHITECTURE.md` holds the map, the rows of that table and the invariants.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::disallowed_methods,
        reason = "tests make their own numbers, and measure and set what the product may not"
    )
)]

pub mod api;
pub mod app;
pub mod confinement;
pub mod disk;
pub mod lifecycle;
pub mod model;
pub mod net;
pub mod objstore;
pub mod otlp;
pub mod prometheus;
pub mod proto;
pub mod query;
pub mod reloader;
pub mod shipper;
pub mod store;
pub mod trace;
pub mod tsdb;
