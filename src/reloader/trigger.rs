//! Telling Prometheus to reload, and learning what became of it (contract `prometheus.md` §7.5).

use std::path::Path;
use std::time::Duration;

use http::StatusCode;

use super::error::TriggerError;
use super::process::{self, PROC};
use crate::lifecycle::blocking;
use crate::model::{Clock, TimestampMs};
use crate::prometheus::{Client, PeerError, PeerErrorClass, RuntimeInfo};

/// How long a reload may take. Large rule sets take tens of seconds; the reference waits for its
/// watch interval, which is as long unless it is set.
pub(super) const RELOAD_MAX: Duration = Duration::from_secs(180);

/// How long a reload by signal may take while the last one has failed: another failure shows in
/// nothing then. One that takes longer and succeeds ends that state, and is seen by the next try.
pub(super) const UNSEEN_RELOAD_MAX: Duration = Duration::from_secs(15);

/// The first pause before Prometheus is asked whether it has reloaded. A small one has by then.
const POLL_MIN: Duration = Duration::from_millis(50);
/// The pauses double up to this one, the reference's.
const POLL_MAX: Duration = Duration::from_secs(1);

/// `--reloader.method`, and what it needs.
#[derive(Clone)]
pub enum Trigger {
    /// A POST to `/-/reload`, which Prometheus answers once it is done.
    Http(Client),
    /// SIGHUP; whether it did is asked for.
    Signal {
        /// `--reloader.process-name`.
        process_name: String,
        /// For the questions.
        client: Client,
        /// The wall clock, which is Prometheus' too: it is on this machine.
        clock: Clock,
    },
    /// What a test wants.
    #[cfg(test)]
    Scripted {
        /// What happens.
        script: Script,
        /// As [`Trigger::is_exact`].
        is_exact: bool,
    },
}

#[cfg(test)]
type Script = std::sync::Arc<dyn Fn() -> Pulled + Send + Sync>;
#[cfg(test)]
type Pulled = std::pin::Pin<Box<dyn Future<Output = Result<(), TriggerError>> + Send>>;

impl Trigger {
    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Signal { .. } => "signal",
            #[cfg(test)]
            Self::Scripted { .. } => "scripted",
        }
    }

    /// Whether a success is that of the reload that was asked for, and can't be one of an earlier
    /// reload that was given up: of one by signal only a time is seen.
    pub(super) fn is_exact(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Signal { .. } => false,
            #[cfg(test)]
            Self::Scripted { is_exact, .. } => *is_exact,
        }
    }

    /// Resolves once Prometheus has loaded its files anew. Dropped, it leaves Prometheus to itself.
    pub(super) async fn pull(self) -> Result<(), TriggerError> {
        let pulled = async {
            match &self {
                Self::Http(client) => post(client).await,
                Self::Signal {
                    process_name,
                    client,
                    clock,
                } => signal(process_name, client, clock).await,
                #[cfg(test)]
                Self::Scripted { script, .. } => script().await,
            }
        };
        let in_time = tokio::time::timeout(RELOAD_MAX, pulled).await;
        in_time.unwrap_or(Err(TriggerError::TimedOut { after: RELOAD_MAX }))
    }
}

impl std::fmt::Debug for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trigger").field(&self.method()).finish()
    }
}

/// Asks whether Prometheus is ready first: while it replays its WAL it takes a POST and does
/// nothing with it until it is, however many come.
async fn post(client: &Client) -> Result<(), TriggerError> {
    match client.runtime_info().await {
        Err(error) if error.class() == PeerErrorClass::Status(StatusCode::SERVICE_UNAVAILABLE) => {
            Err(refused(error))
        }
        _ => client.reload().await.map_err(refused),
    }
}

fn refused(error: PeerError) -> TriggerError {
    match error {
        PeerError::Status {
            url,
            status,
            message,
            ..
        } => TriggerError::Refused {
            status,
            message,
            url,
        },
        error => TriggerError::Ask(error),
    }
}

async fn signal(name: &str, client: &Client, clock: &Clock) -> Result<(), TriggerError> {
    let before = client.runtime_info().await.map_err(TriggerError::Watch)?;
    tokio::time::sleep(until_next_second(before.last_config_time, clock.now())).await;
    let name = name.to_owned();
    blocking(move || process::hang_up(Path::new(PROC), &name)).await?;
    let max = match before.reload_config_success {
        true => RELOAD_MAX,
        false => UNSEEN_RELOAD_MAX,
    };
    let seen = tokio::time::timeout(max, outcome(client, before)).await;
    seen.unwrap_or(Err(TriggerError::TimedOut { after: max }))
}

/// Asks until Prometheus has reloaded, or failed to.
async fn outcome(client: &Client, before: RuntimeInfo) -> Result<(), TriggerError> {
    let mut pause = POLL_MIN;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
        match client.runtime_info().await {
            Ok(now) if is_reloaded(before, now) => return Ok(()),
            Ok(now) if before.reload_config_success && !now.reload_config_success => {
                return Err(TriggerError::Failed);
            }
            Ok(_) => {}
            // It may be busy with the reload.
            Err(error) => tracing::debug!(err = %error, "asking whether Prometheus has reloaded"),
        }
    }
}

fn is_reloaded(before: RuntimeInfo, now: RuntimeInfo) -> bool {
    now.reload_config_success && now.last_config_time > before.last_config_time
}

/// How long to wait so that a reload after it gets another time than `last`: Prometheus tells whole
/// seconds, and within one a second reload could not be told from the first.
fn until_next_second(last: TimestampMs, now: TimestampMs) -> Duration {
    const SECOND_MS: i64 = 1000;
    let elapsed = now.0.saturating_sub(last.0);
    // Otherwise one of the clocks was set, and waiting would not help.
    match (0..SECOND_MS).contains(&elapsed) {
        true => Duration::from_millis((SECOND_MS - elapsed).unsigned_abs()),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_in_the_second_of_the_last_one_waits_for_the_next() {
        let wait_ms =
            |last, now| until_next_second(TimestampMs(last), TimestampMs(now)).as_millis();
        assert_eq!(wait_ms(5000, 5000), 1000);
        assert_eq!(wait_ms(5000, 5999), 1);
        assert_eq!(wait_ms(5000, 6000), 0);
        assert_eq!(wait_ms(5000, 4999), 0, "a clock that was set back");
        assert_eq!(wait_ms(i64::MIN, i64::MAX), 0);
    }

    fn answered(status: StatusCode) -> TriggerError {
        refused(PeerError::Status {
            url: "http://h/-/reload".to_owned(),
            status,
            message: "what it says".to_owned(),
            body: "what it says".to_owned(),
            starting: false,
        })
    }

    #[test]
    fn a_refusal_tells_status_text_and_remedy() {
        for (status, remedy, is_verdict) in [
            (StatusCode::FORBIDDEN, "--web.enable-lifecycle", true),
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "--web.enable-lifecycle",
                true,
            ),
            (StatusCode::NOT_FOUND, "path prefix", true),
            (StatusCode::UNAUTHORIZED, "--prometheus.http-client", true),
            (StatusCode::INTERNAL_SERVER_ERROR, "correct what", true),
            (StatusCode::NO_CONTENT, "correct what", true),
            (StatusCode::SERVICE_UNAVAILABLE, "wait until", false),
        ] {
            let error = answered(status);
            let expected = format!("received non-200 response: {status}: what it says");
            assert_eq!(error.to_string(), expected);
            assert!(
                error.remedy().contains(remedy),
                "{status}: {}",
                error.remedy()
            );
            assert_eq!(error.is_verdict(), is_verdict, "{status}");
        }
        let timed_out = refused(PeerError::TimedOut {
            after: Duration::from_secs(1),
        });
        assert!(!timed_out.is_verdict() && timed_out.remedy().contains("--prometheus.url"));
    }
}
