//! The head's flush at the end: who makes the snapshot, and how long all of it may take.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;

use crate::lifecycle::Signals;
use crate::model::ErrorChain;
use crate::prometheus::Client;
use crate::shipper::{HeadSnapshot, Shipper};

/// What the supervisor waits on top, so that it is the flush that tells that it was cut short.
const TELLING: Duration = Duration::from_secs(2);

/// How long Prometheus may take to tell its flags.
const ASKING: Duration = Duration::from_secs(10);

/// The flush that was asked for with `--shipper.flush-on-shutdown`.
#[derive(Debug)]
pub(super) struct HeadFlush {
    client: Client,
    timeout: Duration,
}

#[async_trait]
impl HeadSnapshot for HeadFlush {
    async fn take(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.client.snapshot().await?)
    }
}

impl HeadFlush {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// How long the end may take.
    pub(super) fn grace(&self) -> Duration {
        self.timeout + TELLING
    }

    /// Tells early what would fail in the end, when nobody may be there to read it.
    pub(super) async fn warn_if_impossible(&self) {
        let remedy = "start Prometheus with --web.enable-admin-api";
        let asked = tokio::time::timeout(ASKING, self.client.has_admin_api()).await;
        match asked.unwrap_or(Ok(None)) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => tracing::error!(
                remedy,
                "Prometheus makes no snapshots, so its head can't be flushed on shutdown"
            ),
            Ok(None) => tracing::warn!(
                remedy,
                "Prometheus does not tell whether it makes snapshots, which the flush on shutdown \
                 needs"
            ),
            Err(error) => tracing::warn!(
                err = %ErrorChain(&error), remedy,
                "it can't be told whether the head can be flushed on shutdown"
            ),
        }
    }

    /// Flushes, until the time is up or another signal comes.
    ///
    /// # Errors
    /// Where the head is not in the bucket then.
    pub(super) async fn run(&self, shipper: &mut Shipper) -> anyhow::Result<()> {
        tracing::info!(timeout = ?self.timeout, "flushing the head of Prometheus");
        let hurried = Signals::catch()?;
        let flushed = tokio::select! {
            flushed = tokio::time::timeout(self.timeout, shipper.flush(self)) => flushed,
            signal = hurried.termination() => {
                anyhow::bail!("flush the head: cut short by another {signal}");
            }
        };
        let flushed = flushed.with_context(|| {
            let timeout = self.timeout;
            format!("flush the head: not done within --shipper.flush-timeout ({timeout:?})")
        })?;
        match flushed.context("flush the head")? {
            Some(block) => tracing::info!(%block, "the head is in the bucket"),
            None => tracing::info!("the head is empty, nothing to flush"),
        }
        Ok(())
    }
}
