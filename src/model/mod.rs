//! The vocabulary that every layer shares: labels, matchers and their patterns, times, durations,
//! block identity, the clock, an error's chain, the YAML of small documents and the variables in
//! them, what a reloader, the shipper and the disk tell of themselves.
//!
//! Plain values without IO. A type stands here when two modules that may not see each other need
//! it; everything else belongs to the module that owns the behaviour.

mod block_id;
mod clock;
mod confinement_status;
mod document;
mod duration;
mod error_chain;
mod expand;
mod labels;
mod matcher;
mod re2;
mod reload;
mod status;
mod time;
mod time_or_duration;

pub use block_id::{BlockId, InvalidBlockId};
pub use clock::Clock;
pub use confinement_status::ConfinementStatus;
pub use document::{DocumentError, Mapping, Scalar, UnknownKey};
pub use duration::{GoDuration, InvalidGoDuration, InvalidPromDuration, PromDuration};
pub use error_chain::ErrorChain;
pub use expand::{ExpandError, expand};
pub use labels::{ExternalLabels, Labels};
pub use matcher::{MatchOp, Matcher, Quoted, Selector};
pub use re2::{AnchoredRegex, Pattern, PatternError, PatternMatcher, Verdict};
pub use reload::{ReloadFailure, ReloadStatus};
pub use status::{
    BlockState, IoStatus, SHIPPING_BLOCKS_NAMED_MAX, SHIPPING_FAILURES_MAX, ShippedBlock,
    ShippingBlock, ShippingCounts, ShippingFailure, ShippingStanding, ShippingStatus, UploadStatus,
};
pub use time::{TimeRange, TimestampMs};
pub use time_or_duration::TimeOrDuration;
