//! What `h2` does not show: the frames themselves, followed by their headers as the bytes pass.
//!
//! Clients that ping too often or reset too many streams get a GOAWAY with ENHANCE_YOUR_CALM whose
//! text names the reason, which grpc-go clients look for; then the connection ends. The same is
//! what tells when the peer last said anything.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::abuse::{Abuse, AbuseGuard, FrameFollower, goaway};

/// How long a peer that is sent away may take to read why.
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);

/// What is going on on a connection, shared with the task that serves it.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    last_read_ms: AtomicU64,
    calls: AtomicUsize,
}

/// One call under way, for as long as it lives.
#[derive(Debug)]
pub(super) struct CountedCall(Arc<Activity>);

/// A connection's bytes, watched.
#[derive(Debug)]
pub(super) struct GuardedIo<T> {
    io: T,
    activity: Arc<Activity>,
    incoming: FrameFollower,
    outgoing: FrameFollower,
    abuse: AbuseGuard,
    closing: Option<Closing>,
}

/// The last words to a peer that is sent away.
#[derive(Debug)]
struct Closing {
    goaway: Vec<u8>,
    written: usize,
    is_shut_down: bool,
    deadline: Pin<Box<Sleep>>,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_read_ms: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
        }
    }

    /// When the peer last sent anything.
    pub(super) fn last_read(&self) -> Instant {
        self.began + Duration::from_millis(self.last_read_ms.load(Ordering::Relaxed))
    }

    /// Counts a call until the value is dropped.
    pub(super) fn begin_call(self: &Arc<Self>) -> CountedCall {
        self.calls.fetch_add(1, Ordering::Relaxed);
        CountedCall(Arc::clone(self))
    }

    fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    fn read_now(&self) -> Instant {
        let now = Instant::now();
        let ms = now.duration_since(self.began).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.last_read_ms.store(ms, Ordering::Relaxed);
        now
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl GuardedIo ===

impl<T: AsyncRead + AsyncWrite + Unpin> GuardedIo<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            incoming: FrameFollower::after_client_preface(),
            outgoing: FrameFollower::at_frame(),
            abuse: AbuseGuard::default(),
            closing: None,
        }
    }

    /// Follows what was read; says what the peer does too often.
    fn follow(&mut self, read: &[u8]) -> Option<Abuse> {
        let now = self.activity.read_now();
        let has_calls = self.activity.has_calls();
        let mut found = None;
        let abuse = &mut self.abuse;
        self.incoming.feed(read, |frame| {
            found = found.or(abuse.on_incoming(frame, now, has_calls));
        });
        found
    }

    fn sent(&mut self, written: &[u8]) {
        let abuse = &mut self.abuse;
        self.outgoing
            .feed(written, |frame| abuse.on_outgoing(frame));
    }

    /// Writes the last words once the frame under way is whole, then waits for the peer to close;
    /// an unread byte in our socket would make the kernel throw the words away.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(closing) = &mut self.closing else {
            return Poll::Pending;
        };
        if closing.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        if !self.outgoing.is_at_boundary() {
            return Poll::Pending;
        }
        let io = &mut self.io;
        while let Some(rest) = closing
            .goaway
            .get(closing.written..)
            .filter(|r| !r.is_empty())
        {
            match ready!(Pin::new(&mut *io).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(written) => closing.written += written,
                Err(error) => return Poll::Ready(error),
            }
        }
        if !closing.is_shut_down {
            if let Err(error) = ready!(Pin::new(&mut *io).poll_shutdown(cx)) {
                return Poll::Ready(error);
            }
            closing.is_shut_down = true;
        }
        loop {
            let mut ignored = [0; 4096];
            let mut buf = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                Ok(()) => return Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
    }

    /// How much of `len` bytes may be written: all, or what the frame under way still lacks once
    /// the connection is closing.
    fn writable(&self, len: usize) -> usize {
        match self.closing {
            None => len,
            Some(_) => len.min(self.outgoing.bytes_to_boundary()),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_some() {
            return this.poll_close(cx).map(Err);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let Some(abuse) = this.follow(read) else {
            return Poll::Ready(Ok(()));
        };
        tracing::debug!(reason = abuse.name(), "sending a peer away");
        // What it sent is not worth an answer any more.
        buf.set_filled(before);
        this.closing = Some(Closing {
            goaway: goaway(abuse, this.incoming.last_stream()),
            written: 0,
            is_shut_down: false,
            deadline: Box::pin(sleep(CLOSING_TIMEOUT)),
        });
        this.poll_close(cx).map(Err)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let allowed = this.writable(buf.len());
        if allowed == 0 && !buf.is_empty() {
            return this.poll_close(cx).map(Err);
        }
        let run = buf.get(..allowed).unwrap_or(buf);
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, run))?;
        this.sent(run.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.closing.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut rest = written;
        for buf in bufs {
            let run = buf.get(..rest.min(buf.len())).unwrap_or_default();
            rest -= run.len();
            this.sent(run);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
