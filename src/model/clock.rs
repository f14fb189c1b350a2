//! The wall clock as a value, so that only `app` decides what time it is.

use std::fmt;
use std::sync::Arc;

use super::TimestampMs;

/// Tells wall-clock time in nanoseconds since the Unix epoch.
///
/// `app` builds it from the system clock, tests from whatever time they need.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i128 + Send + Sync>);

impl Clock {
    /// A clock that asks `now_ns` (nanoseconds since the Unix epoch) at every call.
    pub fn new(now_ns: impl Fn() -> i128 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ns))
    }

    /// A clock that always tells `now_ns`.
    pub fn fixed(now_ns: i128) -> Self {
        Self::new(move || now_ns)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now_ns(&self) -> i128 {
        (self.0)()
    }

    /// Milliseconds since the Unix epoch, the TSDB's unit.
    pub fn now(&self) -> TimestampMs {
        let ms = self.now_ns().div_euclid(1_000_000);
        TimestampMs(i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now_ns()).finish()
    }
}
