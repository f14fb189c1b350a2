//! What the rest of the process knows of Prometheus, and the wait for its external labels.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::storage::PeerStorage;
use crate::model::{ExternalLabels, GoDuration, TimestampMs};

/// Prometheus as the last heartbeats saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// The external labels; kept when later heartbeats fail.
    pub labels: ExternalLabels,
    /// The lowest time we may be asked for: the later of `--min-time`, as of the last heartbeat,
    /// and the oldest sample.
    pub mint: TimestampMs,
    /// The oldest sample, `i64::MIN` where there is none; `None` until Prometheus told. A failure
    /// to tell it later changes nothing.
    pub lowest: Option<TimestampMs>,
    /// The highest: always the end of time.
    pub maxt: TimestampMs,
    /// The version Prometheus told at start; empty before.
    pub build_version: String,
    /// Whether the last heartbeat succeeded.
    pub up: bool,
    /// Whether labels were loaded once: servers may open.
    pub loaded: bool,
    /// Whether Prometheus' flags allow uploads, or nothing is to be uploaded.
    pub flags_accepted: bool,
    /// Whether Prometheus is alive and replays its write-ahead log.
    pub replaying: bool,
    /// The last heartbeat that failed, also where later ones succeeded. A new one alone wakes
    /// nobody.
    pub last_failure: Option<PeerFailure>,
    /// What storage Prometheus had when it last told; `None` until then, and where it did not tell
    /// twice in a row though it was up.
    pub storage: Option<PeerStorage>,
}

/// A heartbeat that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFailure {
    /// When.
    pub at: TimestampMs,
    /// The error and its causes, in one line. Without credentials.
    pub error: String,
    /// What an operator can do about it, where the error does not say it itself.
    pub remedy: Option<&'static str>,
}

/// The heartbeat's outputs.
#[derive(Clone, Debug)]
pub struct PeerWatch {
    /// All that is known.
    pub state: watch::Receiver<PeerState>,
    /// Only the labels, for those who may not know Prometheus; empty until known. Wakes only
    /// when they change.
    pub labels: watch::Receiver<ExternalLabels>,
}

/// Why there are no labels to work with.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// Prometheus told none in time.
    #[error("aborting as no external labels found after waiting {}", shown(*waited))]
    NoneFound {
        /// `--prometheus.ready_timeout`.
        waited: Duration,
    },
}

fn shown(waited: Duration) -> GoDuration {
    GoDuration::from_nanos(i64::try_from(waited.as_nanos()).unwrap_or(i64::MAX))
}

impl PeerState {
    /// A Prometheus that is up and has these labels, of whose storage nothing is known.
    #[cfg(any(test, feature = "testing"))]
    pub fn up_with(labels: ExternalLabels) -> Self {
        Self {
            labels,
            up: true,
            loaded: true,
            flags_accepted: true,
            ..Self::unknown(TimestampMs(0))
        }
    }

    /// Nothing known yet but our own bound.
    pub(super) fn unknown(min_time: TimestampMs) -> Self {
        Self {
            labels: ExternalLabels::default(),
            mint: min_time,
            lowest: None,
            maxt: TimestampMs(i64::MAX),
            build_version: String::new(),
            up: false,
            loaded: false,
            flags_accepted: false,
            replaying: false,
            last_failure: None,
            storage: None,
        }
    }
}

/// Waits for external labels, at most `ready_timeout` (contract `cli.md` §5). Time during which
/// Prometheus was seen replaying its write-ahead log does not count: it is alive, and how long it
/// takes is not ours to judge.
///
/// Waits without end once the heartbeat is gone: it ends only when all does, and the reason to be
/// told is its own.
///
/// # Errors
/// Where the time is used up.
pub async fn await_labels(
    mut state: watch::Receiver<PeerState>,
    ready_timeout: Duration,
) -> Result<ExternalLabels, LabelsError> {
    let mut remaining = ready_timeout;
    loop {
        let (labels, replaying) = {
            let state = state.borrow_and_update();
            (state.labels.clone(), state.replaying)
        };
        if !labels.is_empty() {
            return Ok(labels);
        }
        let waiting_since = Instant::now();
        let changed = match replaying {
            true => state.changed().await,
            false => match tokio::time::timeout(remaining, state.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    return Err(LabelsError::NoneFound {
                        waited: ready_timeout,
                    });
                }
            },
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
        if !replaying {
            remaining = remaining.saturating_sub(waiting_since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn labels() -> ExternalLabels {
        let pair = ("a".to_owned(), "b".to_owned());
        ExternalLabels([pair].into_iter().collect::<Labels>())
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_used_up_only_outside_of_replay() {
        let (sender, receiver) = watch::channel(PeerState::unknown(TimestampMs(0)));
        let started = Instant::now();
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let waiting = tokio::spawn(await_labels(receiver, minutes(10)));
        for (state, for_minutes) in [(false, 4), (true, 30), (false, 5), (true, 300)] {
            sender.send_modify(|s| s.replaying = state);
            tokio::time::sleep(minutes(for_minutes)).await;
        }
        sender.send_modify(|s| s.replaying = false);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(started.elapsed(), minutes(10 + 330));
        assert_eq!(
            error.to_string(),
            "aborting as no external labels found after waiting 10m0s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn labels_end_the_wait_and_the_end_of_the_heartbeat_does_not() {
        let (sender, receiver) = watch::channel(PeerState::unknown(TimestampMs(0)));
        let waiting = tokio::spawn(await_labels(receiver.clone(), Duration::from_secs(1)));
        sender.send_modify(|s| s.labels = labels());
        assert_eq!(waiting.await.unwrap().unwrap(), labels());
        sender.send_modify(|s| s.labels = ExternalLabels::default());
        drop(sender);
        let waiting = await_labels(receiver, Duration::from_secs(1));
        let outcome = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
