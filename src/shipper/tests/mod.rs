//! The shipper against real directories: scenes, cases by name, and a random-operation model.

mod flush;
mod found;
mod model;
mod s3;
mod scenarios;
mod scene;
