//! How failures to send are told: the first at once, then one in a while, and the end of them.

use std::time::Duration;

use tokio::time::Instant;

use super::error::SendError;
use crate::model::ErrorChain;

/// Failures give one line in this time.
const FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    told: Option<Instant>,
    left_out: u64,
    is_failing: bool,
}

impl FailureLog {
    /// A batch was not taken, and will not be sent again.
    pub(super) fn failed(&mut self, collector: &str, error: &SendError, spans: usize) {
        self.is_failing = true;
        let Some(left_out) = self.admit() else {
            return;
        };
        tracing::warn!(
            component = "tracing", collector, spans, left_out, err = %ErrorChain(error),
            "spans could not be sent and are dropped"
        );
    }

    /// The collector took a batch but for some.
    pub(super) fn rejected(&mut self, collector: &str, spans: i64, why: &str) {
        if let Some(left_out) = self.admit() {
            tracing::warn!(
                component = "tracing",
                collector,
                spans,
                left_out,
                err = why,
                "the collector refused some spans"
            );
        }
    }

    /// A batch was taken.
    pub(super) fn succeeded(&mut self, collector: &str) {
        if std::mem::take(&mut self.is_failing) {
            self.told = None;
            tracing::info!(component = "tracing", collector, "spans are taken again");
        }
    }

    /// Whether a failure is to be told; then how many have not been since the last one was.
    fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        let is_due = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= FAILURE_INTERVAL);
        if !is_due {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_are_told_once_a_while_and_anew_after_a_success() {
        let mut log = FailureLog::default();
        assert_eq!(log.admit(), Some(0));
        assert_eq!((log.admit(), log.admit()), (None, None));
        tokio::time::advance(FAILURE_INTERVAL).await;
        assert_eq!(log.admit(), Some(2));
        log.failed("c", &SendError::Timeout(Duration::ZERO), 1);
        log.succeeded("c");
        assert_eq!(log.admit(), Some(1));
    }
}
