//! Bodies of requests: bytes that were kept, or that are read again while they are sent.
//!
//! Nothing is copied: frames are slices of the pool's buffers. Each frame handed out is progress;
//! a server is judged by that and never by how long a whole request takes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::integrity::{Summing, Wanted};
use crate::net::http::RequestBody;
use crate::objstore::{ByteRuns, ErrorKind, Pace, SourceError};

/// Frames over TLS: one record each. A record of its own slice was the cheapest measured (1 MiB
/// slices cost a tenth more).
const TLS_FRAME_BYTES: usize = 16 << 10;

/// Frames over plain HTTP: large enough that a system call is nothing, small enough that a slow
/// line shows progress.
const PLAIN_FRAME_BYTES: usize = 256 << 10;

/// What a socket may hold unsent when the last frame has left us: Linux's `tcp_wmem` maximum.
const SOCKET_BYTES: u64 = 4 << 20;

/// The slowest line on which an upload is healthy, for what is in the socket.
const RATE_MIN: u64 = 32 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A second reading gave other bytes than the first.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("read twice, the source gave different bytes: checksum {first:016x}, then {second:016x}")]
pub(super) struct RereadDiffers {
    first: u64,
    second: u64,
}

/// Bytes kept until the request has succeeded.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    runs: Arc<[Bytes]>,
    length: u64,
}

/// How far a body is, for whoever watches over the request.
#[derive(Debug)]
pub(super) struct Progress {
    phase: Mutex<Phase>,
    length: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing was asked for yet.
    Connecting { since: Instant },
    /// The body itself is waited for: the source, or the pace.
    Ours,
    /// The transport has a frame and has not asked for the next one.
    Sending { since: Instant },
    /// All frames were handed out.
    Sent { since: Instant },
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To take a frame.
    pub(super) stall: Duration,
    /// To begin its answer; `None` for ever.
    pub(super) answer: Option<Duration>,
}

/// What the server took too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Frame(Duration),
    Answer(Duration),
}

/// Where a body that is read while it is sent leaves the reason why it ended early.
pub(super) type FaultSlot = Arc<Mutex<Option<ErrorKind>>>;

/// A body on its way.
struct Outgoing {
    feed: Feed,
    /// What is left of the run at hand.
    run: Bytes,
    left: u64,
    frame_bytes: usize,
    pace: Option<Pace>,
    granted: Option<(Pin<Box<Sleep>>, Bytes)>,
    progress: Arc<Progress>,
}

enum Feed {
    Kept { runs: Arc<[Bytes]>, next: usize },
    Read(BoxStream<'static, Result<Bytes, BoxError>>),
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(runs: Vec<Bytes>) -> Self {
        let length = runs.iter().map(|run| run.len() as u64).sum();
        Self {
            runs: runs.into(),
            length,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// A body of these bytes.
    pub(super) fn body(
        &self,
        tls: bool,
        pace: Option<Pace>,
        progress: &Arc<Progress>,
    ) -> RequestBody {
        let feed = Feed::Kept {
            runs: Arc::clone(&self.runs),
            next: 0,
        };
        Outgoing::new(feed, self.length, tls, pace, progress).boxed_unsync()
    }
}

/// A body of `length` bytes that are read while they are sent. They must have `crc64`: the last
/// run is held back until that is sure, so that a body with other bytes never ends.
pub(super) fn reread_body(
    runs: Box<dyn ByteRuns>,
    length: u64,
    crc64: u64,
    fault: &FaultSlot,
    (tls, pace, progress): (bool, Option<Pace>, &Arc<Progress>),
) -> RequestBody {
    let reading = Reading {
        runs,
        left: length,
        length,
        crc64,
        summing: Some(Summing::new(Wanted::default())),
    };
    let fault = Arc::clone(fault);
    let read = stream::try_unfold(reading, |mut reading| async move {
        let run = reading.next().await?;
        Ok::<_, ErrorKind>(run.map(|run| (run, reading)))
    });
    let told = read.map(move |run| {
        run.map_err(|kind| {
            *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
            BoxError::from("the source failed while it was sent")
        })
    });
    Outgoing::new(Feed::Read(told.boxed()), length, tls, pace, progress).boxed_unsync()
}

struct Reading {
    runs: Box<dyn ByteRuns>,
    left: u64,
    length: u64,
    crc64: u64,
    /// `None` at the end.
    summing: Option<Summing>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, ErrorKind> {
        let Some(summing) = self.summing.as_mut().filter(|_| self.left > 0) else {
            return Ok(None);
        };
        let run = self.runs.next(self.left).await.map_err(ErrorKind::Source)?;
        let run = run.unwrap_or_default();
        let taken = run.len() as u64;
        if taken == 0 || taken > self.left {
            return Err(ErrorKind::SourceLength {
                expected_bytes: self.length,
                given_bytes: self.length - self.left + taken,
            });
        }
        summing.update(&run);
        self.left -= taken;
        if self.left == 0
            && let Some(summing) = self.summing.take()
        {
            let second = summing.finish().crc64;
            if second != self.crc64 {
                let first = self.crc64;
                let error: SourceError = Box::new(RereadDiffers { first, second });
                return Err(ErrorKind::Source(error));
            }
        }
        Ok(Some(run))
    }
}

// === impl Outgoing ===

impl Outgoing {
    fn new(
        feed: Feed,
        length: u64,
        tls: bool,
        pace: Option<Pace>,
        progress: &Arc<Progress>,
    ) -> Self {
        let frame_bytes = match tls {
            true => TLS_FRAME_BYTES,
            false => PLAIN_FRAME_BYTES,
        };
        let slice_bytes = pace.as_ref().map_or(usize::MAX, Pace::slice_bytes_max);
        Self {
            feed,
            run: Bytes::new(),
            left: length,
            frame_bytes: frame_bytes.min(slice_bytes),
            pace,
            granted: None,
            progress: Arc::clone(progress),
        }
    }

    /// The next frame, before the pace.
    fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        while self.run.is_empty() {
            let run = match &mut self.feed {
                Feed::Kept { runs, next } => {
                    let run = runs.get(*next).cloned();
                    *next += 1;
                    run.map(Ok)
                }
                Feed::Read(read) => ready!(read.poll_next_unpin(cx)),
            };
            match run {
                Some(Ok(run)) => self.run = run,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.run.len().min(self.frame_bytes);
        Poll::Ready(Some(Ok(self.run.split_to(length))))
    }

    fn poll_paced(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.granted.is_none() {
            let slice = match ready!(self.poll_slice(cx)) {
                Some(Ok(slice)) => slice,
                other => return Poll::Ready(other),
            };
            let Some(pace) = &self.pace else {
                return Poll::Ready(Some(Ok(slice)));
            };
            let at = pace.grant(slice.len() as u64);
            self.granted = Some((Box::pin(tokio::time::sleep_until(at)), slice));
        }
        if let Some((sleep, _)) = &mut self.granted {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(self.granted.take().map(|(_, slice)| Ok(slice)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(slice) = self.poll_paced(cx) else {
            self.progress.set(Phase::Ours);
            return Poll::Pending;
        };
        if let Some(Ok(slice)) = &slice {
            self.left = self.left.saturating_sub(slice.len() as u64);
        }
        let since = Instant::now();
        self.progress.set(match self.left {
            0 => Phase::Sent { since },
            _ => Phase::Sending { since },
        });
        Poll::Ready(slice.map(|slice| slice.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

// === impl Progress ===

impl Progress {
    /// Of a body of `length` bytes whose request begins now.
    pub(super) fn new(length: u64) -> Arc<Self> {
        let since = Instant::now();
        Arc::new(Self {
            phase: Mutex::new(Phase::Connecting { since }),
            length,
        })
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Resolves when the server has taken longer than `patience` allows.
    pub(super) async fn overdue(&self, patience: Patience) -> Overdue {
        loop {
            let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let (since, after, overdue) = match phase {
                // Connections have limits of their own, and wait for their turn without one.
                Phase::Connecting { .. } if self.length > 0 => (now, patience.stall, None),
                Phase::Ours => (now, patience.stall, None),
                Phase::Sending { since } => {
                    (since, patience.stall, Some(Overdue::Frame(patience.stall)))
                }
                Phase::Connecting { since } | Phase::Sent { since } => match patience.answer {
                    None => std::future::pending().await,
                    Some(answer) => {
                        let after = answer + self.unsent_allowance(phase);
                        (since, after, Some(Overdue::Answer(after)))
                    }
                },
            };
            match overdue {
                Some(overdue) if since + after <= now => return overdue,
                _ => tokio::time::sleep_until(since + after).await,
            }
        }
    }

    /// The time that bytes already handed to the socket may take on a slow line, or a request
    /// without any to be connected.
    fn unsent_allowance(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Connecting { .. } => Duration::from_secs(60),
            _ => Duration::from_secs(self.length.min(SOCKET_BYTES) / RATE_MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::{MemorySource, UploadSource as _};
    use std::num::NonZeroU64;

    fn kept(lengths: &[usize]) -> Kept {
        Kept::new(lengths.iter().map(|n| Bytes::from(vec![7; *n])).collect())
    }

    #[tokio::test]
    async fn frames_are_slices_of_what_is_kept() {
        for (tls, largest) in [(true, TLS_FRAME_BYTES), (false, PLAIN_FRAME_BYTES)] {
            let kept = kept(&[1, 0, 1 << 20, 300_000]);
            let progress = Progress::new(kept.length());
            let mut body = kept.body(tls, None, &progress);
            let (first, last) = (kept.runs[2].as_ptr_range(), kept.length());
            assert_eq!(body.size_hint().exact(), Some(last));
            let mut total = 0;
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= largest && !data.is_empty());
                let inside = first.contains(&data.as_ptr());
                assert_eq!(inside, (1..=1 << 20).contains(&total));
                total += data.len();
            }
            assert_eq!(total as u64, last);
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept_and_is_no_stall() {
        let kept = kept(&[1 << 20]);
        let progress = Progress::new(kept.length());
        let pace = Pace::new(NonZeroU64::new(1 << 12).unwrap());
        let patience = Patience {
            stall: Duration::from_secs(5),
            answer: Some(Duration::from_secs(1)),
        };
        let started = Instant::now();
        let watch = progress.overdue(patience);
        let mut body = kept.body(true, Some(pace), &progress);
        let send = async {
            while let Some(frame) = body.frame().await {
                frame.unwrap();
            }
            std::future::pending::<()>().await;
        };
        // The body takes minutes, which is our own doing; then the answer does not come.
        tokio::select! {
            overdue = watch => {
                assert_eq!(overdue, Overdue::Answer(Duration::from_secs(1 + 32)));
            }
            () = send => {}
        }
        assert!(started.elapsed() >= Duration::from_secs(255 + 33));
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_rate_keeps_every_connection_moving() {
        let pace = Pace::new(NonZeroU64::new(8 << 10).unwrap());
        let bodies = (0..4).map(|_| {
            let kept = kept(&[256 << 10]);
            let progress = Progress::new(kept.length());
            let mut body = kept.body(false, Some(pace.clone()), &progress);
            async move {
                let mut last = Instant::now();
                while let Some(frame) = body.frame().await {
                    frame.unwrap();
                    // AWS closes after 20 s.
                    assert!(last.elapsed() < Duration::from_secs(2));
                    last = Instant::now();
                }
            }
        });
        futures_util::future::join_all(bodies).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_nobody_takes_is_a_stall() {
        let kept = kept(&[1 << 20]);
        let progress = Progress::new(kept.length());
        let mut body = kept.body(false, None, &progress);
        body.frame().await.unwrap().unwrap();
        let patience = Patience {
            stall: Duration::from_secs(60),
            answer: None,
        };
        let overdue = progress.overdue(patience).await;
        assert_eq!(overdue, Overdue::Frame(Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_second_reading_that_differs_never_ends() {
        let source = MemorySource(Bytes::from(vec![1; 100_000]));
        let mut summing = Summing::new(Wanted::default());
        summing.update(&source.0);
        let crc64 = summing.finish().crc64;
        for (given, length, is_whole) in [
            (crc64, 100_000, true),
            (crc64 ^ 1, 100_000, false),
            (crc64, 100_001, false),
        ] {
            let fault = FaultSlot::default();
            let progress = Progress::new(length);
            let runs = source.reread(0..100_000).await.unwrap();
            let via = (true, None, &progress);
            let mut body = reread_body(runs, length, given, &fault, via);
            let (mut total, mut failed) = (0, false);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => total += frame.into_data().unwrap().len() as u64,
                    Err(_) => {
                        failed = true;
                        break;
                    }
                }
            }
            assert_eq!((total == length, !failed), (is_whole, is_whole));
            assert_eq!(fault.lock().unwrap().is_some(), !is_whole);
        }
    }
}
