//! What is so now, collected from those who publish it: page and document tell the same.
//!
//! The names of fields are those of the JSON document, which programs rely on: they may be added to
//! and not changed. Times are milliseconds since the Unix epoch.

use serde::Serialize;
use tokio::time::Instant;

use super::StatusSources;
use crate::model::{
    BlockId, BlockState, ConfinementStatus, IoStatus, Labels, ReloadStatus, ShippingStanding,
    ShippingStatus, TimestampMs,
};
use crate::prometheus::PeerState;
use crate::query::QueryStatus;
use crate::store::{Gate, LocalBlocks, LocalStanding};

/// Longest text of an error, bytes.
const ERROR_BYTES_MAX: usize = 4096;

#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) process: ProcessFacts,
    pub(super) prometheus: PrometheusFacts,
    /// Without a bucket there is none.
    pub(super) shipping: Option<ShippingFacts>,
    /// Where `--no-store.local-blocks` turns them off there are none.
    pub(super) local_blocks: Option<LocalBlockFacts>,
    pub(super) store_calls: StoreCallFacts,
    /// Without `--query.enable` there is none.
    pub(super) query: Option<QueryFacts>,
    /// Without anything to watch there is none.
    pub(super) reloader: Option<ReloaderFacts>,
    /// Without a bucket there is none.
    pub(super) io: Option<IoFacts>,
    pub(super) confinement: ConfinementFacts,
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessFacts {
    pub(super) version: &'static str,
    pub(super) revision: &'static str,
    pub(super) stands_in_for: &'static str,
    pub(super) now_ms: i64,
    pub(super) uptime_seconds: u64,
    pub(super) healthy: bool,
    pub(super) ready: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PrometheusFacts {
    /// Without credentials.
    pub(super) url: String,
    /// `up`, `replaying` or `down`; `unknown` before the first answer or failure.
    pub(super) state: &'static str,
    pub(super) version: Option<String>,
    pub(super) flags_accepted: bool,
    #[serde(serialize_with = "as_map")]
    pub(super) external_labels: Labels,
    pub(super) oldest_sample_ms: Option<i64>,
    pub(super) last_failure: Option<FailureFacts>,
}

#[derive(Debug, Serialize)]
pub(super) struct FailureFacts {
    pub(super) at_ms: i64,
    pub(super) times: u64,
    pub(super) block: Option<String>,
    pub(super) error: String,
    pub(super) remedy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct ShippingFacts {
    pub(super) bucket: String,
    /// `starting`, `other_owner` or `running`.
    pub(super) state: &'static str,
    pub(super) last_look_ms: Option<i64>,
    pub(super) shipped: usize,
    pub(super) waiting: usize,
    pub(super) damaged: usize,
    pub(super) left_out: usize,
    pub(super) upload: Option<UploadFacts>,
    pub(super) last_shipped: Option<ShippedFacts>,
    pub(super) blocks: Vec<BlockFacts>,
    /// How many blocks are not in the list.
    pub(super) blocks_unlisted: usize,
    /// The check that protects uploads on their way.
    pub(super) integrity: Option<String>,
    pub(super) failures: Vec<FailureFacts>,
}

#[derive(Debug, Serialize)]
pub(super) struct UploadFacts {
    pub(super) block: String,
    pub(super) total_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) seconds: u64,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ShippedFacts {
    pub(super) block: String,
    pub(super) at_ms: i64,
    pub(super) size_bytes: u64,
    pub(super) milliseconds: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct BlockFacts {
    pub(super) block: String,
    pub(super) mint_ms: Option<i64>,
    pub(super) maxt_ms: Option<i64>,
    /// `uploading`, or a name of `BlockState`.
    pub(super) state: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct LocalBlockFacts {
    /// `waiting`, `on` or `off`.
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    pub(super) on_disk: usize,
    pub(super) serving: usize,
    /// From when on Prometheus answers.
    pub(super) cut_ms: Option<i64>,
    pub(super) unreadable: usize,
    pub(super) unreadable_blocks: Vec<UnreadableFacts>,
}

#[derive(Debug, Serialize)]
pub(super) struct UnreadableFacts {
    pub(super) block: String,
    pub(super) reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct StoreCallFacts {
    pub(super) series: GateFacts,
    /// Calls for labels and other lists.
    pub(super) lists: GateFacts,
}

#[derive(Debug, Serialize)]
pub(super) struct GateFacts {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) running_max: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct QueryFacts {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) running_max: usize,
    pub(super) timeout_ms: u64,
    /// Whole answers since the start, and queries that ended otherwise.
    pub(super) answered: u64,
    pub(super) not_answered: u64,
    /// Expressions that had to be rewritten, and those that can't be.
    pub(super) rewritten: u64,
    pub(super) unsupported: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ReloaderFacts {
    pub(super) current: bool,
    pub(super) last_success_ms: Option<i64>,
    pub(super) watched_directories: usize,
    pub(super) last_failure: Option<FailureFacts>,
}

#[derive(Debug, Serialize)]
pub(super) struct IoFacts {
    pub(super) engine: &'static str,
    pub(super) reason: String,
    pub(super) buffers_in_use: usize,
    pub(super) buffers_max: usize,
    pub(super) buffers_bytes: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct ConfinementFacts {
    /// 0 where there is no Landlock.
    pub(super) landlock_abi: u8,
    /// `listed`, `not-dangerous` or `all`.
    pub(super) system_calls: &'static str,
    pub(super) reason: Option<String>,
}

// === impl Facts ===

impl Facts {
    /// What is so now. No lock outlives this.
    pub(super) fn of(sources: &StatusSources) -> Self {
        let now = Instant::now();
        let io = sources.io.as_ref().map(|io| io());
        let integrity = io.as_ref().and_then(|io| io.integrity.clone());
        let shipping = sources.shipping.as_ref().map(|shipping| {
            let status = shipping.status.borrow();
            ShippingFacts::of(&shipping.bucket, &status, integrity, now)
        });
        let probe = *sources.probe.status().borrow();
        Self {
            process: ProcessFacts {
                version: sources.version,
                revision: sources.revision,
                stands_in_for: sources.stands_in_for,
                now_ms: sources.clock.now().0,
                uptime_seconds: now.saturating_duration_since(sources.started).as_secs(),
                healthy: probe.healthy,
                ready: probe.ready,
            },
            prometheus: PrometheusFacts::of(&sources.prometheus_url, &sources.peer.borrow()),
            shipping,
            local_blocks: (sources.local_blocks.as_ref())
                .map(|status| LocalBlockFacts::of(&status.borrow())),
            store_calls: StoreCallFacts {
                series: GateFacts::of(&sources.series_calls),
                lists: GateFacts::of(&sources.list_calls),
            },
            query: (sources.query.as_ref()).map(|engine| QueryFacts::of(engine.status())),
            reloader: (sources.reloader.as_ref()).map(|status| ReloaderFacts::of(&status.borrow())),
            io: io.map(IoFacts::of),
            confinement: ConfinementFacts::of(&sources.confinement),
        }
    }
}

impl QueryFacts {
    pub(super) fn of(status: QueryStatus) -> Self {
        Self {
            running: status.running,
            waiting: status.waiting,
            running_max: status.max_concurrent,
            timeout_ms: u64::try_from(status.timeout.as_millis()).unwrap_or(u64::MAX),
            answered: status.answered,
            not_answered: status.not_answered,
            rewritten: status.rewritten,
            unsupported: status.unsupported,
        }
    }
}

impl PrometheusFacts {
    fn of(url: &str, peer: &PeerState) -> Self {
        let failure = peer.last_failure.as_ref();
        let state = match peer {
            PeerState { up: true, .. } => "up",
            PeerState {
                replaying: true, ..
            } => "replaying",
            _ if failure.is_some() => "down",
            _ => "unknown",
        };
        Self {
            url: url.to_owned(),
            state,
            version: (!peer.build_version.is_empty()).then(|| peer.build_version.clone()),
            flags_accepted: peer.flags_accepted,
            external_labels: peer.labels.0.clone(),
            oldest_sample_ms: peer.lowest.map(|at| at.0).filter(|at| *at != i64::MIN),
            last_failure: failure.map(|failure| FailureFacts {
                at_ms: failure.at.0,
                times: 1,
                block: None,
                error: shortened(&failure.error),
                remedy: failure.remedy,
            }),
        }
    }
}

impl ShippingFacts {
    fn of(bucket: &str, status: &ShippingStatus, integrity: Option<String>, now: Instant) -> Self {
        let counts = status.counts;
        let all = counts.shipped + counts.waiting + counts.damaged + counts.left_out;
        let uploading = status.upload.as_ref().map(|upload| upload.block);
        let state_of = |id: BlockId, state: BlockState| match uploading == Some(id) {
            true => "uploading",
            false => state.name(),
        };
        let blocks = status.blocks.iter().map(|block| BlockFacts {
            block: block.id.to_string(),
            mint_ms: block.range.map(|range| range.mint.0),
            maxt_ms: block.range.map(|range| range.maxt.0),
            state: state_of(block.id, block.state),
        });
        let failures = status.failures.iter().map(|failure| FailureFacts {
            at_ms: failure.at.0,
            times: failure.times,
            block: failure.block.map(|block| block.to_string()),
            error: shortened(&failure.error),
            remedy: failure.remedy,
        });
        Self {
            bucket: bucket.to_owned(),
            state: match status.standing {
                ShippingStanding::Starting => "starting",
                ShippingStanding::OtherOwner => "other_owner",
                ShippingStanding::Running => "running",
            },
            last_look_ms: millis(status.last_look),
            shipped: counts.shipped,
            waiting: counts.waiting,
            damaged: counts.damaged,
            left_out: counts.left_out,
            upload: status.upload.as_ref().map(|upload| UploadFacts {
                block: upload.block.to_string(),
                total_bytes: upload.total_bytes,
                sent_bytes: upload.sent_bytes,
                seconds: now.saturating_duration_since(upload.started).as_secs(),
                bytes_per_second: upload.bytes_per_second(now),
                seconds_left: upload.seconds_left(now),
            }),
            last_shipped: status.last_shipped.map(|shipped| ShippedFacts {
                block: shipped.id.to_string(),
                at_ms: shipped.at.0,
                size_bytes: shipped.size_bytes,
                milliseconds: u64::try_from(shipped.took.as_millis()).unwrap_or(u64::MAX),
            }),
            blocks: blocks.collect(),
            blocks_unlisted: all.saturating_sub(status.blocks.len()),
            integrity,
            failures: failures.collect(),
        }
    }
}

impl LocalBlockFacts {
    fn of(status: &LocalBlocks) -> Self {
        let unreadable = status.unreadable_blocks.iter();
        let (state, reason) = match &status.standing {
            LocalStanding::Waiting => ("waiting", None),
            LocalStanding::On => ("on", None),
            LocalStanding::Off { reason } => ("off", Some(shortened(reason))),
        };
        Self {
            state,
            reason,
            on_disk: status.on_disk,
            serving: status.local,
            cut_ms: millis(status.cut),
            unreadable: status.unreadable,
            unreadable_blocks: unreadable
                .map(|block| UnreadableFacts {
                    block: block.id.to_string(),
                    reason: shortened(&block.reason),
                })
                .collect(),
        }
    }
}

impl GateFacts {
    fn of(gate: &Gate) -> Self {
        Self {
            running: gate.running(),
            waiting: gate.waiting(),
            running_max: gate.running_max(),
        }
    }
}

impl ReloaderFacts {
    fn of(status: &ReloadStatus) -> Self {
        Self {
            current: status.is_current,
            last_success_ms: millis(status.last_success),
            watched_directories: status.watched_dirs,
            last_failure: status.last_failure.as_ref().map(|failure| FailureFacts {
                at_ms: failure.at.0,
                times: 1,
                block: None,
                error: shortened(&failure.error),
                remedy: failure.remedy,
            }),
        }
    }
}

impl IoFacts {
    fn of(status: IoStatus) -> Self {
        Self {
            engine: status.engine,
            reason: status.engine_reason,
            buffers_in_use: status.buffers_in_use,
            buffers_max: status.buffers_max,
            buffers_bytes: status.buffers_bytes,
        }
    }
}

impl ConfinementFacts {
    fn of(status: &ConfinementStatus) -> Self {
        Self {
            landlock_abi: status.landlock_abi,
            system_calls: status.calls,
            reason: status.reason.as_deref().map(shortened),
        }
    }
}

fn millis(time: Option<TimestampMs>) -> Option<i64> {
    time.map(|time| time.0)
}

/// At most [`ERROR_BYTES_MAX`] of a text, by whole characters.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(ERROR_BYTES_MAX);
    match text.get(..end) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}

fn as_map<S: serde::Serializer>(labels: &Labels, into: S) -> Result<S::Ok, S::Error> {
    labels.as_map().serialize(into)
}
