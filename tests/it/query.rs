//! PromQL with external labels in place, held against a Prometheus whose series really carry them.

mod api;
mod compare;
mod data;
mod dialect;
mod expression;
mod generator;
mod mixins;
mod operators;
mod property;
mod stand;
mod through_http;
