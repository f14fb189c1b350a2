//! Queries against a loopback Prometheus that answers right and wrong.
