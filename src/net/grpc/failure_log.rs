//! How often failures are logged: whoever can make a call fail could fill the log otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Method;
use super::status::Code;

/// Failures of one method with one code give one line in this time.
pub(super) const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

/// What was logged last. There are no more entries than methods and codes.
#[derive(Debug, Default)]
pub(super) struct FailureLog(Mutex<HashMap<(Method, Code), Last>>);

#[derive(Debug)]
struct Last {
    at: Instant,
    left_out: u64,
}

impl FailureLog {
    /// Whether a failure is to be logged; then how many have not been since the last one was.
    pub(super) fn admit(&self, method: Method, code: Code) -> Option<u64> {
        let now = Instant::now();
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = logged.get_mut(&(method, code)) else {
            let last = Last {
                at: now,
                left_out: 0,
            };
            logged.insert((method, code), last);
            return Some(0);
        };
        if now.saturating_duration_since(last.at) < FAILURE_INTERVAL {
            last.left_out = last.left_out.saturating_add(1);
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::grpc::MethodKind;

    const fn method(name: &'static str) -> Method {
        Method {
            service: "t.Trial",
            name,
            kind: MethodKind::Unary,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_many_is_admitted_per_method_code_and_interval() {
        let log = FailureLog::default();
        let (one, other) = (method("One"), method("Other"));
        assert_eq!(log.admit(one, Code::Internal), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.admit(one, Code::Internal), None);
        }
        assert_eq!(log.admit(one, Code::Unknown), Some(0));
        assert_eq!(log.admit(other, Code::Internal), Some(0));
        tokio::time::advance(FAILURE_INTERVAL).await;
        assert_eq!(log.admit(one, Code::Internal), Some(1000));
        assert_eq!(log.admit(one, Code::Internal), None);
        tokio::time::advance(FAILURE_INTERVAL).await;
        assert_eq!(log.admit(one, Code::Internal), Some(1));
        assert_eq!(log.admit(other, Code::Internal), Some(0));
    }
}
