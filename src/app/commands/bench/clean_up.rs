//! Removes what a run has written to the bucket.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};

use super::setup::Target;
use crate::lifecycle::Signals;
use crate::model::ErrorChain;
use crate::objstore::{BucketError, MultipartState, ObjectKey};

/// Removals in flight.
const CONCURRENCY: usize = 8;

/// How long all of it may take; a bucket that answers nothing must not hold the process for ever.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a run has put into the bucket, or may have.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) objects: BTreeSet<ObjectKey>,
    pub(super) unfinished: Vec<MultipartState>,
}

/// Removes all of it. After a signal, another one leaves it.
///
/// # Errors
/// Where something stays, naming it.
pub(super) async fn remove(target: &Target, is_interrupted: bool) -> anyhow::Result<()> {
    let written = {
        let mut written = target
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *written)
    };
    let signals = Signals::catch()?;
    let again = async {
        if is_interrupted {
            signals.termination().await
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        removed = remove_all(target, written) => removed,
        _ = again => anyhow::bail!("stopped again: objects below {} may stay", target.prefix),
        () = tokio::time::sleep(DEADLINE) => {
            anyhow::bail!("objects below {} may stay: the bucket took too long", target.prefix)
        }
    }
}

async fn remove_all(target: &Target, written: Written) -> anyhow::Result<()> {
    for upload in &written.unfinished {
        let abandoned = target.bucket.abandon(upload).await;
        abandoned.with_context(|| format!("an upload in parts stays: {}", upload.upload_id))?;
    }
    let count = written.objects.len();
    let left: Vec<(ObjectKey, BucketError)> = stream::iter(written.objects)
        .map(|key| async move {
            let removed = target.bucket.delete(&key).await;
            removed.err().map(|error| (key, error))
        })
        .buffer_unordered(CONCURRENCY)
        .filter_map(|left| async move { left })
        .collect()
        .await;
    match left.first() {
        None => Ok(()),
        Some((key, error)) => anyhow::bail!(
            "{} of {count} objects below {} stay; remove them by hand. The first is {key}: {}",
            left.len(),
            target.prefix,
            ErrorChain(error)
        ),
    }
}
