//! The sending half of a call, shared between the handler, which sends messages, and the task that
//! drives the call, which must notice a reset at any time.
//!
//! `h2` keeps one waker per stream for everything that has to do with sending. The driver's is the
//! one it gets; a sender that waits for room leaves its own here, and the driver passes the
//! wake-up on once there is room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::compress::{ACCEPTED, Encoding, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use super::status::Status;

pub(super) const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// How long a client may take nothing of what is ready for it, before its call is reset: it holds
/// memory and permits that others wait for. Longer than queriers wait themselves (2 minutes unless
/// told otherwise), so that only one that has forgotten its call is met.
pub(super) const STALL_MAX: Duration = Duration::from_secs(180);

/// The sending half of one call; clones share it.
#[derive(Clone)]
pub(super) struct Outbound(Arc<Mutex<Inner>>);

struct Inner {
    state: State,
    encoding: Encoding,
    driver: Option<Waker>,
    sender: Option<Waker>,
    /// What a sender had not sent when it was dropped.
    rest: BytesMut,
}

/// ```text
/// Unsent ── first message ──▶ Streaming ── status ──▶ Ended
///    └──────────── status alone (trailers-only) ───────▲
/// ```
enum State {
    Unsent(SendResponse<Bytes>),
    Streaming(SendStream<Bytes>),
    Ended,
}

// === impl Outbound ===

impl Outbound {
    pub(super) fn new(respond: SendResponse<Bytes>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state: State::Unsent(respond),
            encoding: Encoding::Identity,
            driver: None,
            sender: None,
            rest: BytesMut::new(),
        })))
    }

    /// The encoding that the response headers will name.
    pub(super) fn set_encoding(&self, encoding: Encoding) {
        self.lock().encoding = encoding;
    }

    /// Keeps what a sender leaves behind, for [`Outbound::take_rest`].
    pub(super) fn leave_rest(&self, rest: BytesMut) {
        self.lock().rest = rest;
    }

    /// What the last sender left behind.
    pub(super) fn take_rest(&self) -> BytesMut {
        std::mem::take(&mut self.lock().rest)
    }

    /// Resolves once the peer has reset the stream or the connection is gone. Polled by the driver
    /// alone, and before the handler.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if !matches!(&inner.driver, Some(waker) if waker.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        let gone = match &mut inner.state {
            State::Unsent(respond) => respond.poll_reset(cx).is_ready(),
            State::Streaming(stream) => stream.poll_reset(cx).is_ready(),
            State::Ended => false,
        };
        if gone {
            return Poll::Ready(());
        }
        let has_room = match &inner.state {
            State::Streaming(stream) => stream.capacity() > 0,
            State::Unsent(_) | State::Ended => true,
        };
        // Only once there is room: a wake-up without it would turn in a circle.
        if has_room && let Some(sender) = inner.sender.take_if(|w| !w.will_wake(cx.waker())) {
            sender.wake();
        }
        Poll::Pending
    }

    /// Resolves to how many of `wanted` bytes may be sent now, at least one; sends the headers
    /// first where they have not been. The window of the peer and what `h2` holds for this stream
    /// bound it, so waiting here is the backpressure.
    pub(super) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Status>> {
        let mut inner = self.lock();
        inner.start()?;
        let Inner {
            state,
            driver,
            sender,
            ..
        } = &mut *inner;
        let State::Streaming(stream) = state else {
            return Poll::Ready(Err(Status::client_gone()));
        };
        stream.reserve_capacity(wanted);
        loop {
            let room = stream.capacity();
            if room > 0 {
                *sender = None;
                return Poll::Ready(Ok(room.min(wanted)));
            }
            let polled = match driver {
                Some(driver) => stream.poll_capacity(&mut Context::from_waker(driver)),
                None => stream.poll_capacity(cx),
            };
            match polled {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => {
                    return Poll::Ready(Err(Status::client_gone()));
                }
                Poll::Pending => {
                    *sender = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends the headers where they have not been.
    pub(super) fn send_headers(&self) -> Result<(), Status> {
        self.lock().start()
    }

    /// Hands over bytes for which there is room.
    pub(super) fn send(&self, bytes: Bytes) -> Result<(), Status> {
        match &mut self.lock().state {
            State::Streaming(stream) => stream
                .send_data(bytes, false)
                .map_err(|_| Status::client_gone()),
            State::Unsent(_) | State::Ended => Err(Status::client_gone()),
        }
    }

    /// Sends everything in `buffer`, waiting for room; what is sent leaves the buffer, so this may
    /// be dropped at any time. Where there is no room for [`STALL_MAX`], the call is reset.
    pub(super) async fn send_all(&self, buffer: &mut BytesMut) -> Result<(), Status> {
        while !buffer.is_empty() {
            let room = std::future::poll_fn(|cx| self.poll_room(cx, buffer.len()));
            let Ok(room) = tokio::time::timeout(STALL_MAX, room).await else {
                self.reset_if_stalled();
                return Err(Status::client_gone());
            };
            self.send(buffer.split_to(room?).freeze())?;
        }
        Ok(())
    }

    /// Ends the call: trailers after messages, or headers alone.
    pub(super) fn finish(&self, status: &Status) {
        let mut inner = self.lock();
        if status.code == super::Code::Ok && inner.start().is_err() {
            return;
        }
        // A peer that is gone by now has nothing to be told.
        let _gone = match std::mem::replace(&mut inner.state, State::Ended) {
            State::Unsent(respond) => refuse(respond, StatusCode::OK, status),
            State::Streaming(mut stream) => {
                let mut trailers = HeaderMap::with_capacity(2);
                status.write(&mut trailers);
                stream.send_trailers(trailers)
            }
            State::Ended => Ok(()),
        };
    }

    /// Ends a call that never began, with an HTTP status of its own.
    pub(super) fn refuse(&self, http_status: StatusCode, status: &Status) {
        let mut inner = self.lock();
        if let State::Unsent(respond) = std::mem::replace(&mut inner.state, State::Ended) {
            let _gone = refuse(respond, http_status, status);
        }
    }

    /// Ends the call for a peer that does not take what it was sent: a sender waits for room, so
    /// trailers would wait behind its data. Says whether that was so.
    pub(super) fn reset_if_stalled(&self) -> bool {
        let mut inner = self.lock();
        if inner.sender.is_none() {
            return false;
        }
        let State::Streaming(mut stream) = std::mem::replace(&mut inner.state, State::Ended) else {
            return false;
        };
        stream.send_reset(Reason::CANCEL);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// Sends the headers, once.
    fn start(&mut self) -> Result<(), Status> {
        let State::Unsent(respond) = &mut self.state else {
            return Ok(());
        };
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE_GRPC);
        headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        if self.encoding != Encoding::Identity {
            let name = HeaderValue::from_static(self.encoding.name());
            headers.insert(GRPC_ENCODING, name);
        }
        match respond.send_response(response, false) {
            Ok(stream) => {
                self.state = State::Streaming(stream);
                Ok(())
            }
            Err(_) => {
                self.state = State::Ended;
                Err(Status::client_gone())
            }
        }
    }
}

fn refuse(
    mut respond: SendResponse<Bytes>,
    http_status: StatusCode,
    status: &Status,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = http_status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE_GRPC);
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
    status.write(headers);
    respond.send_response(response, true).map(drop)
}
