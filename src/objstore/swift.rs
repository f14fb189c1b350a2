//! OpenStack Swift (`type: SWIFT`), by its own API: tokens of Keystone (v3) or of Swift's own
//! login (v1), MD5 as entity tags, large objects of segments.
//!
//! Not through Swift's S3 layer: that wants EC2 credentials, which Keystone's do not give.

mod document;
mod login;
mod wire;

pub(super) use document::SwiftKeys;
pub use document::{SwiftConfigError, SwiftSettings};
pub use login::{SwiftAccess, SwiftLogin};
pub(super) use wire::SwiftWire;

#[cfg(test)]
mod tests;
