//! The status page at `/` and the same as JSON at `/api/v1/status`: what the other parts publish,
//! without a decision of its own.
//!
//! The page is rendered by the server and whole in one answer: no script, no font, no image, no
//! style sheet of another address. It asks for itself again by `<meta http-equiv="refresh">`, which
//! needs no script and works under a policy that forbids everything else; `/?refresh=off` stands
//! still.

mod facts;
mod markup;
mod page;
mod quantity;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, LazyLock};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use facts::Facts;

use crate::lifecycle::Probe;
use crate::model::{Clock, ConfinementStatus, IoStatus, ReloadStatus, ShippingStatus};
use crate::prometheus::PeerState;
use crate::query::Engine;
use crate::store::{Gate, LocalBlocks};

/// Asks how disk and uploads stand.
pub type IoReading = Arc<dyn Fn() -> IoStatus + Send + Sync>;

/// Where the status comes from.
pub struct StatusSources {
    /// The version of this program.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The version of the reference that it stands in for.
    pub stands_in_for: &'static str,
    /// The wall clock.
    pub clock: Clock,
    /// When the process started.
    pub started: Instant,
    /// Health and readiness.
    pub probe: Probe,
    /// Where Prometheus is, without credentials.
    pub prometheus_url: String,
    /// Prometheus as the heartbeat sees it.
    pub peer: watch::Receiver<PeerState>,
    /// The shipper, where there is one.
    pub shipping: Option<ShippingSource>,
    /// Disk engine, buffers and integrity check, where there is a shipper.
    pub io: Option<IoReading>,
    /// Blocks that answer, where they may.
    pub local_blocks: Option<watch::Receiver<LocalBlocks>>,
    /// The reloader, where it has something to watch.
    pub reloader: Option<watch::Receiver<ReloadStatus>>,
    /// What the process keeps itself from.
    pub confinement: ConfinementStatus,
    /// Series calls.
    pub series_calls: Gate,
    /// Calls for labels and other lists.
    pub list_calls: Gate,
    /// What evaluates queries, where that is wanted.
    pub query: Option<Engine>,
}

/// A shipper and where it ships to.
#[derive(Debug)]
pub struct ShippingSource {
    /// The bucket's name.
    pub bucket: String,
    /// How it stands.
    pub status: watch::Receiver<ShippingStatus>,
}

/// Nothing but what the page itself holds; and no other page may frame it.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = BASE64_STANDARD.encode(Sha256::digest(page::STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("invariant: base64 and the rest are visible ASCII")
});

// === impl StatusSources ===

impl StatusSources {
    /// The page; `query` is that of the request.
    pub(super) fn page(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let refreshes = query != Some("refresh=off");
        let page = page::page(&Facts::of(self), refreshes);
        let mut response = answer(page, "text/html; charset=utf-8");
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        response
    }

    /// The document.
    ///
    /// # Errors
    /// None that is known: the facts have nothing that JSON can't say.
    pub(super) fn document(&self) -> serde_json::Result<Response<Full<Bytes>>> {
        let mut text = serde_json::to_string(&Facts::of(self))?;
        text.push('\n');
        Ok(answer(text, "application/json"))
    }
}

impl fmt::Debug for StatusSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusSources").finish_non_exhaustive()
    }
}

fn answer(text: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
