//! In whose name requests are signed (contract `objstore.md` §2.1).
//!
//! Credentials are looked for when they are first needed, kept until shortly before they expire,
//! and looked for again then, or when the server has refused them. Callers that need them at the
//! same time share one search. No secret is in any message or `Debug` form.

mod chain;
mod container;
mod files;
mod sdk;

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};

pub(in crate::objstore) use chain::ChainSettings;
use chain::{Found, Sources};
pub(in crate::objstore) use files::CredentialFiles;
pub(in crate::objstore) use sdk::{ExchangeError, SdkClient};

use crate::model::{Clock, ErrorChain};

/// Longest time that all sources together may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Credentials are replaced this long before they expire, or a quarter of their time where that is
/// less: the instance metadata service has new ones five minutes before.
const RENEW_AHEAD_MAX: Duration = Duration::from_secs(300);
/// After a search that was in vain, or that gave credentials which are about to expire.
const SEARCH_PAUSE: Duration = Duration::from_secs(10);
/// How long nothing is looked for again after nothing was found.
const ANONYMOUS_FOR: Duration = Duration::from_secs(60);

/// In whose name requests are signed; clones share what was found.
#[derive(Clone)]
pub struct S3Credentials(Arc<Identity>);

enum Identity {
    Anonymous,
    Fixed(Credentials),
    Chain(Box<Chain>),
}

/// Why there are no credentials.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No source has any, and requests may not be anonymous.
    #[error("no credentials were found, of which aws_sdk_auth needs some; tried {tried}")]
    NotFound {
        /// Each source and why it has none.
        tried: String,
    },
    /// The source that should have them failed.
    #[error("asking for credentials of {origin}{}", passed_over(.tried))]
    Source {
        /// The source.
        origin: &'static str,
        /// The sources before it and why they have none.
        tried: String,
        /// Why.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The sources did not answer in time.
    #[error("no answer about credentials within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// Credentials were found, and they were to sign in a way that does not exist here.
    #[error(
        "signature version 2 is not supported: remove `signature_version2`, every maintained S3 \
         server takes version 4"
    )]
    SignatureVersion2,
}

/// Where credentials are looked for and what was found.
struct Chain {
    origin: Origin,
    required: bool,
    signature_version2: bool,
    clock: Clock,
    state: Mutex<State>,
    /// Held while the sources are asked.
    searching: tokio::sync::Mutex<()>,
}

enum Origin {
    Sources(Box<Sources>),
    Provider(SharedCredentialsProvider),
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Counts the searches that ended.
    searches: u64,
    /// How the last one failed, if it did.
    failure: Option<CredentialsError>,
}

struct Held {
    /// `None`: nothing was found.
    credentials: Option<Credentials>,
    origin: &'static str,
    expires_at_ns: Option<i128>,
    search_again_at_ns: Option<i128>,
}

// === impl S3Credentials ===

impl S3Credentials {
    /// Requests are not signed.
    pub fn anonymous() -> Self {
        Self(Arc::new(Identity::Anonymous))
    }

    /// These, for ever.
    pub fn fixed(access_key: &str, secret_key: &str, session_token: Option<String>) -> Self {
        let name = "static credentials";
        let credentials = Credentials::new(access_key, secret_key, session_token, None, name);
        Self(Arc::new(Identity::Fixed(credentials)))
    }

    /// Whatever the first source has that has some.
    pub(in crate::objstore) fn chain(settings: ChainSettings) -> Self {
        Self(Arc::new(Identity::Chain(Box::new(Chain {
            required: settings.required,
            signature_version2: settings.signature_version2,
            clock: settings.clock.clone(),
            origin: Origin::Sources(Box::new(Sources::new(settings))),
            state: Mutex::default(),
            searching: tokio::sync::Mutex::default(),
        }))))
    }

    /// Whatever the provider has. It should keep none by itself: it is asked shortly before those
    /// it gave expire, and when they were refused.
    pub fn provided(provider: SharedCredentialsProvider, clock: Clock) -> Self {
        Self(Arc::new(Identity::Chain(Box::new(Chain {
            required: true,
            signature_version2: false,
            clock,
            origin: Origin::Provider(provider),
            state: Mutex::default(),
            searching: tokio::sync::Mutex::default(),
        }))))
    }

    /// The credentials to sign with now; `None` where requests are not to be signed.
    ///
    /// # Errors
    /// Where the sources fail and what they gave before is not valid any more.
    pub async fn current(&self) -> Result<Option<Credentials>, CredentialsError> {
        match &*self.0 {
            Identity::Anonymous => Ok(None),
            Identity::Fixed(credentials) => Ok(Some(credentials.clone())),
            Identity::Chain(chain) => chain.current().await,
        }
    }

    /// Forgets credentials that the server has refused as expired, unless they were replaced
    /// since; [`Self::current`] looks for new ones then.
    pub fn invalidate(&self, refused: &Credentials) {
        if let Identity::Chain(chain) = &*self.0 {
            let mut state = chain.state();
            let held = state.held.as_ref();
            if held.is_some_and(|held| held.credentials.as_ref() == Some(refused)) {
                state.held = None;
            }
        }
    }

    /// Whether requests can never be signed.
    pub fn is_anonymous(&self) -> bool {
        matches!(*self.0, Identity::Anonymous)
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, access_key) = match &*self.0 {
            Identity::Anonymous => ("Anonymous", None),
            Identity::Fixed(credentials) => ("Fixed", Some(credentials.access_key_id().to_owned())),
            Identity::Chain(chain) => {
                let state = chain.state();
                let held = state.held.as_ref();
                let held = held.and_then(|held| held.credentials.as_ref());
                ("Chain", held.map(|held| held.access_key_id().to_owned()))
            }
        };
        f.debug_struct(kind)
            .field("access_key", &access_key)
            .finish_non_exhaustive()
    }
}

fn passed_over(tried: &str) -> String {
    match tried {
        "" => String::new(),
        tried => format!(" (before it: {tried})"),
    }
}

// === impl Chain ===

impl Chain {
    async fn current(&self) -> Result<Option<Credentials>, CredentialsError> {
        let searches = match self.fresh() {
            Ok(credentials) => return Ok(credentials),
            Err(searches) => searches,
        };
        let _turn = self.searching.lock().await;
        // Somebody else may have searched in the meantime, with or without success.
        match self.fresh() {
            Ok(credentials) => return Ok(credentials),
            Err(now) if now != searches => {
                if let Some(failure) = self.state().failure.clone() {
                    return Err(failure);
                }
            }
            Err(_) => {}
        }
        let found = match tokio::time::timeout(SEARCH_TIMEOUT, self.origin.search()).await {
            Ok(found) => found,
            Err(_) => Err(CredentialsError::Timeout {
                after: SEARCH_TIMEOUT,
            }),
        };
        self.keep(found.and_then(|found| self.allowed(found)))
    }

    /// What is held and need not be looked for; else how many searches there were.
    fn fresh(&self) -> Result<Option<Credentials>, u64> {
        let now = self.clock.now_ns();
        let state = self.state();
        match &state.held {
            Some(held) if held.search_again_at_ns.is_none_or(|at| now < at) => {
                Ok(held.credentials.clone())
            }
            _ => Err(state.searches),
        }
    }

    /// Whether requests may be signed, or not be signed, as was found.
    fn allowed(&self, found: Found) -> Result<Found, CredentialsError> {
        match &found {
            Found::Nothing { tried } if self.required => Err(CredentialsError::NotFound {
                tried: tried.clone(),
            }),
            Found::Credentials { .. } if self.signature_version2 => {
                Err(CredentialsError::SignatureVersion2)
            }
            _ => Ok(found),
        }
    }

    fn keep(
        &self,
        found: Result<Found, CredentialsError>,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let now = self.clock.now_ns();
        let mut state = self.state();
        state.searches += 1;
        state.failure = None;
        let failure = match found {
            Ok(Found::Credentials {
                origin,
                credentials,
            }) => {
                tell_found(state.held.as_ref(), origin, &credentials);
                state.held = Some(Held::new(origin, credentials.clone(), now));
                return Ok(Some(credentials));
            }
            Ok(Found::Nothing { tried }) => match &state.held {
                // What was there a while ago is no reason to go on without a name.
                Some(held) if held.credentials.is_some() => CredentialsError::NotFound { tried },
                held => {
                    if held.is_none() {
                        tracing::warn!(
                            component = "s3",
                            tried,
                            "no credentials were found, requests are anonymous"
                        );
                    }
                    state.held = Some(Held::nothing(now));
                    return Ok(None);
                }
            },
            Err(failure) => failure,
        };
        if let Some(held) = &mut state.held
            && held.is_valid(now)
        {
            tracing::warn!(
                component = "s3",
                err = %ErrorChain(&failure),
                "credentials could not be renewed, the old ones are still valid"
            );
            held.search_again_at_ns = Some(now.saturating_add(nanos(SEARCH_PAUSE)));
            return Ok(held.credentials.clone());
        }
        state.failure = Some(failure.clone());
        Err(failure)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Once for each source that comes into use; that it is renewed is no news.
fn tell_found(before: Option<&Held>, origin: &'static str, found: &Credentials) {
    if before.is_none_or(|before| before.origin != origin) {
        tracing::info!(
            component = "s3",
            origin,
            access_key = found.access_key_id(),
            "credentials found"
        );
    }
}

// === impl Origin ===

impl Origin {
    async fn search(&self) -> Result<Found, CredentialsError> {
        let provider = match self {
            Self::Sources(sources) => return sources.search().await,
            Self::Provider(provider) => provider,
        };
        let origin = "a provider";
        match provider.provide_credentials().await {
            Ok(credentials) => Ok(Found::Credentials {
                origin,
                credentials,
            }),
            Err(error) => Err(CredentialsError::Source {
                origin,
                tried: String::new(),
                source: Arc::new(error),
            }),
        }
    }
}

// === impl Held ===

impl Held {
    fn new(origin: &'static str, credentials: Credentials, now: i128) -> Self {
        let expiry = credentials.expiry();
        let expires_at_ns = expiry.map(|at| at.duration_since(UNIX_EPOCH).map_or(0, nanos));
        let search_again_at_ns = expires_at_ns.map(|expires_at| {
            let left = expires_at.saturating_sub(now).max(0);
            let ahead = nanos(RENEW_AHEAD_MAX).min(left / 4);
            // Not at each request, also where a source only has some that are about to expire.
            let soonest = now.saturating_add(nanos(SEARCH_PAUSE));
            (expires_at - ahead).max(soonest)
        });
        Self {
            credentials: Some(credentials),
            origin,
            expires_at_ns,
            search_again_at_ns,
        }
    }

    fn nothing(now: i128) -> Self {
        Self {
            credentials: None,
            origin: "",
            expires_at_ns: None,
            search_again_at_ns: Some(now.saturating_add(nanos(ANONYMOUS_FOR))),
        }
    }

    fn is_valid(&self, now: i128) -> bool {
        self.credentials.is_some() && self.expires_at_ns.is_none_or(|at| now < at)
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests;
