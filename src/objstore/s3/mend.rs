//! What is done about a refusal before the request is given up or waits for its next try: the
//! bucket's region, a wrong clock, expired credentials, and what the store itself knows; each once
//! for a call, and the operator is told where it takes long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_credential_types::Credentials;
use http::StatusCode;

use super::error::{Refusal, S3Fault};
use super::request::Client;
use super::wire::Mend;
use crate::model::ErrorChain;
use crate::objstore::ErrorKind;

/// A clock less wrong than this is not the reason for a refusal (S3 tolerates 15 minutes).
const SKEW_MS_MIN: u64 = 5 * 60 * 1000;

/// Failed tries of one call that are told to nobody but debuggers: one or two are usual.
const ATTEMPTS_QUIET: u32 = 3;

/// What to do where the error itself does not tell.
const REMEDY: &str = "check the server, and the network between here and there";

/// Remedies that are tried once for each call.
#[derive(Default)]
pub(super) struct Tried {
    wire: bool,
    region: bool,
    clock: bool,
    credentials: bool,
    /// Not a remedy: the operator was told that it takes long.
    warned: bool,
}

// === impl Tried ===

impl Tried {
    /// Logs that a call is tried again: a warning, once, where that takes long already.
    pub(super) fn say(
        &mut self,
        (component, operation): (&'static str, &'static str),
        attempts: u32,
        delay: Duration,
        fault: &S3Fault,
    ) {
        let err = ErrorChain(fault).to_string();
        let stalled = matches!(fault, S3Fault::Stalled { .. } | S3Fault::NoAnswer { .. });
        if (attempts >= ATTEMPTS_QUIET || stalled) && !self.warned {
            self.warned = true;
            let remedy = fault.remedy().unwrap_or(REMEDY);
            tracing::warn!(
                component,
                operation,
                attempts,
                ?delay,
                err,
                remedy,
                "the request has not succeeded so far; trying again"
            );
        } else {
            tracing::debug!(component, operation, attempts, ?delay, err, "trying again");
        }
    }
}

// === impl Client ===

impl Client {
    /// Does what can be done about a refusal, once for each reason; whether it is worth a try.
    pub(super) async fn mend(
        &self,
        fault: &S3Fault,
        tried: &mut Tried,
        region: &mut String,
        credentials: Option<Credentials>,
    ) -> Result<bool, ErrorKind> {
        let Some(refusal) = fault.refusal() else {
            return Ok(false);
        };
        if !tried.wire {
            let mend = self.wire.mend(refusal);
            tried.wire = mend != Mend::No;
            match mend {
                Mend::No => {}
                Mend::Again => return Ok(true),
                Mend::Create => return self.create_bucket().await.map(|()| true),
            }
        }
        Ok(self.mend_alike(refusal, tried, region, credentials))
    }

    /// Makes the bucket; that somebody else was faster is fine.
    async fn create_bucket(&self) -> Result<(), ErrorKind> {
        let call = self.wire.creation_call();
        // The call is of another kind than the one that found no bucket, so this ends.
        let made = Box::pin(self.attempts(&call, String::new(), None)).await;
        match made {
            Ok(_) => {
                let (component, bucket) = (self.wire.component(), &self.config.bucket);
                tracing::info!(component, bucket, "the bucket was not there and was made");
                Ok(())
            }
            Err(ErrorKind::S3(error)) if error.is_conflict() => Ok(()),
            Err(kind) => Err(kind),
        }
    }

    /// What can be done in the way of S3.
    fn mend_alike(
        &self,
        refusal: &Refusal,
        tried: &mut Tried,
        region: &mut String,
        credentials: Option<Credentials>,
    ) -> bool {
        let bare = !refusal.documented;
        if let Some(other) = &refusal.region
            && other != region
            && !tried.region
            && (refusal.status.is_redirection() || refusal.status == StatusCode::BAD_REQUEST)
        {
            tried.region = true;
            self.moved(region, other);
            region.clone_from(other);
            return true;
        }
        let skew_ms = refusal.skew_ms.unwrap_or(0);
        // Azure does not tell a wrong clock from a wrong key.
        let may_be_skewed = (bare || refusal.code == "AuthenticationFailed")
            && refusal.status == StatusCode::FORBIDDEN
            && skew_ms.unsigned_abs() >= SKEW_MS_MIN;
        let known_ms = self.skew_ms.load(Ordering::Relaxed);
        if (refusal.is_skewed() || may_be_skewed) && !tried.clock && skew_ms != known_ms {
            tried.clock = true;
            tracing::warn!(
                component = self.wire.component(),
                skew_seconds = skew_ms / 1000,
                remedy = "set this machine's clock (NTP)",
                "this machine's clock differs from the server's; requests are signed with the \
                 server's time"
            );
            self.skew_ms.store(skew_ms, Ordering::Relaxed);
            return true;
        }
        // A HEAD's 400 says nothing; it may be an expired token.
        let may_be_expired = bare && refusal.status == StatusCode::BAD_REQUEST;
        if let Some(credentials) = credentials
            && credentials.session_token().is_some()
            && (refusal.is_expired_token() || may_be_expired)
            && !tried.credentials
        {
            tried.credentials = true;
            self.credentials.invalidate(&credentials);
            return true;
        }
        false
    }
}
