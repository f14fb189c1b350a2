//! Who may talk to the HTTP server, and how: what `--http.config` asks for, around the endpoints.
//!
//! The file and the TLS files that it names are looked at for each connection and each request, and
//! read again once they have changed. Everything is behind it: probes and metrics too.

mod config;
mod file;
mod passwords;
mod rate;
mod tls;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

pub use config::WebDocumentError;
pub use file::WebConfigError;
use file::{LoadedConfig, follow};
use passwords::{Access, Passwords};

use crate::lifecycle::Reloading;
use crate::net::http::HttpTransport;

/// The way in to the HTTP server; cheap to clone.
#[derive(Clone, Debug)]
pub struct WebAccess(Way);

#[derive(Clone, Debug)]
enum Way {
    /// Plain text, open to everyone: there is no file.
    Open,
    /// As the file says.
    Guarded(Arc<Guard>),
}

/// A web configuration in force.
#[derive(Debug)]
struct Guard {
    config: Reloading<LoadedConfig, WebConfigError>,
    passwords: Passwords,
}

/// An answer that is being made.
type Answer<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

// === impl WebAccess ===

impl WebAccess {
    /// Plain text, open to everyone.
    pub fn open() -> Self {
        Self(Way::Open)
    }

    /// Reads the web configuration file and the TLS files that it names.
    ///
    /// # Errors
    /// See [`WebConfigError`]: file, key and line at fault are named.
    pub fn from_file(path: &Path) -> Result<Self, WebConfigError> {
        Ok(Self(Way::Guarded(Arc::new(Guard {
            config: follow(path)?,
            passwords: Passwords::default(),
        }))))
    }

    /// The files that are read while it is in use, as they are named now.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.0 {
            Way::Open => Vec::new(),
            Way::Guarded(guard) => guard.config.current().files(),
        }
    }

    /// How to speak on a connection that comes now.
    pub fn transport(&self) -> HttpTransport {
        match &self.0 {
            Way::Open => HttpTransport::default(),
            Way::Guarded(guard) => {
                let current = guard.config.current();
                HttpTransport {
                    tls: current
                        .acceptor
                        .as_ref()
                        .map(|tls| tls.current().as_ref().clone()),
                    http2: current.config.http2,
                }
            }
        }
    }

    /// `handler` for those who may come in; others get an answer of our own.
    pub fn guarded<R, H, F, B>(
        self,
        handler: H,
    ) -> impl Fn(Request<R>) -> Answer<B> + Clone + Send + 'static
    where
        R: Send + 'static,
        H: Fn(Request<R>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send,
        B: From<Bytes> + Send + 'static,
    {
        move |request| {
            let (access, handler) = (self.clone(), handler.clone());
            Box::pin(async move {
                match &access.0 {
                    Way::Open => handler(request).await,
                    Way::Guarded(guard) => guard.answer(request, handler).await,
                }
            })
        }
    }
}

// === impl Guard ===

impl Guard {
    /// In the order of the reference: the rate limit, then headers and who it is.
    async fn answer<R, F, B>(
        &self,
        request: Request<R>,
        handler: impl FnOnce(Request<R>) -> F,
    ) -> Response<B>
    where
        F: Future<Output = Response<B>>,
        B: From<Bytes>,
    {
        let current = self.config.current();
        let config = &current.config;
        if config.rate.as_ref().is_some_and(|rate| !rate.admit()) {
            return refused(StatusCode::TOO_MANY_REQUESTS, None);
        }
        let access = match config.users.is_empty() {
            true => Access::Granted,
            false => {
                let shown = request.headers().clone();
                self.passwords.check(&config.users, &shown).await
            }
        };
        let mut response = match access {
            Access::Granted => handler(request).await,
            Access::Denied => refused(
                StatusCode::UNAUTHORIZED,
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))),
            ),
            Access::Busy => refused(
                StatusCode::SERVICE_UNAVAILABLE,
                Some((RETRY_AFTER, HeaderValue::from_static("5"))),
            ),
        };
        set(response.headers_mut(), &config.headers);
        response
    }
}

fn set(headers: &mut HeaderMap, wanted: &HeaderMap) {
    for (name, value) in wanted {
        headers.insert(name, value.clone());
    }
}

/// An answer of our own, in the form of Go's `http.Error`.
fn refused<B: From<Bytes>>(
    status: StatusCode,
    more: Option<(HeaderName, HeaderValue)>,
) -> Response<B> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(B::from(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(more);
    response
}

#[cfg(test)]
mod tests;
