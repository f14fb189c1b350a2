//! The body of an answer: whole, or in pieces that are made while others are sent.
//!
//! Pieces are made by a task of their own, few ahead of what the client takes. A client that is
//! gone ends the task, and so what it reads from; one that takes nothing for a while, or the whole
//! not in time, is cut off, since what it holds (a turn, a connection to Prometheus) others wait
//! for. Only a body whose last piece was made has an end: everything else breaks the connection
//! off.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::ErrorChain;

/// How many pieces may be made that the client has not taken.
const PIECES_AHEAD_MAX: usize = 2;
/// How much of a body that is there goes at a time.
const SLICE_BYTES: usize = 64 << 10;
/// How long a client may take nothing at all.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);

/// The body of an answer of the HTTP endpoints.
#[derive(Debug)]
pub struct AnswerBody(Content);

/// A body that ends before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

#[derive(Debug)]
enum Content {
    Whole(Full<Bytes>),
    Pieces(mpsc::Receiver<Piece>),
    Ended,
}

#[derive(Debug)]
enum Piece {
    More(Bytes),
    End,
}

/// What makes the pieces of an answer.
pub(super) trait Pieces: Send + 'static {
    /// Why it stops.
    type Error: Error + Send + 'static;

    /// The next one; `None` at the end.
    fn next_piece(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;
}

// === impl AnswerBody ===

impl AnswerBody {
    /// The pieces of `source`. The first are waited for: what goes wrong before is still to be told
    /// by a status, and an answer that is no longer is sent with its length.
    pub(super) async fn of<P: Pieces>(mut source: P) -> Result<Self, P::Error> {
        let Some(first) = source.next_piece().await? else {
            return Ok(Self::from(Bytes::new()));
        };
        let Some(second) = source.next_piece().await? else {
            return Ok(Self::from(first));
        };
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = send([first, second], source, &sender) => {}
            }
        });
        Ok(Self(Content::Pieces(receiver)))
    }
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Whole(Full::new(bytes)))
    }
}

impl From<Full<Bytes>> for AnswerBody {
    fn from(body: Full<Bytes>) -> Self {
        Self(Content::Whole(body))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = match &mut self.0 {
            Content::Ended => return Poll::Ready(None),
            Content::Whole(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                return frame.map_err(|never| match never {});
            }
            Content::Pieces(pieces) => match ready!(pieces.poll_recv(cx)) {
                Some(Piece::More(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Piece::End) => None,
                None => Some(Err(BrokenOff)),
            },
        };
        self.0 = Content::Ended;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(body) => body.is_end_stream(),
            Content::Pieces(_) => false,
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(body) => body.size_hint(),
            Content::Pieces(_) => SizeHint::default(),
            Content::Ended => SizeHint::with_exact(0),
        }
    }
}

/// A body that is there already, and what is kept until it is gone.
pub(super) struct Sliced<K> {
    rest: Bytes,
    deadline: Instant,
    _kept: K,
}

/// A client took some now and then, and not the whole in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client did not take it in time")]
pub(super) struct Overdue;

impl<K> Sliced<K> {
    /// After `deadline` no more of it is sent.
    pub(super) fn new(body: Bytes, deadline: Instant, kept: K) -> Self {
        Self {
            rest: body,
            deadline,
            _kept: kept,
        }
    }
}

impl<K: Send + 'static> Pieces for Sliced<K> {
    type Error = Overdue;

    async fn next_piece(&mut self) -> Result<Option<Bytes>, Overdue> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if Instant::now() >= self.deadline {
            return Err(Overdue);
        }
        let piece = self.rest.split_to(self.rest.len().min(SLICE_BYTES));
        // A copy: what waits for the client would otherwise keep the whole body, without a turn.
        Ok(Some(Bytes::copy_from_slice(&piece)))
    }
}

/// Sends pieces until the last, or until one can't be made or is not taken.
async fn send<P: Pieces>(begun: [Bytes; 2], mut source: P, to: &mpsc::Sender<Piece>) {
    for piece in begun {
        if !is_taken(Piece::More(piece), to).await {
            return;
        }
    }
    loop {
        let piece = match source.next_piece().await {
            Ok(Some(piece)) => Piece::More(piece),
            Ok(None) => Piece::End,
            Err(error) => {
                tracing::warn!(err = %ErrorChain(&error), "the answer to a query broke off");
                return;
            }
        };
        let is_end = matches!(piece, Piece::End);
        if !is_taken(piece, to).await || is_end {
            return;
        }
    }
}

async fn is_taken(piece: Piece, to: &mpsc::Sender<Piece>) -> bool {
    let sent = tokio::time::timeout(STALL_MAX, to.send(piece)).await;
    if sent.is_err() {
        tracing::warn!(after = ?STALL_MAX, "a client took nothing of its answer and is cut off");
    }
    matches!(sent, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    /// So many pieces, then the end or an error.
    struct Counted {
        left: usize,
        fails: bool,
        made: Arc<AtomicUsize>,
    }

    impl Pieces for Counted {
        type Error = BrokenOff;

        async fn next_piece(&mut self) -> Result<Option<Bytes>, BrokenOff> {
            if self.left == 0 {
                return match self.fails {
                    true => Err(BrokenOff),
                    false => Ok(None),
                };
            }
            self.left -= 1;
            self.made.fetch_add(1, Ordering::SeqCst);
            Ok(Some(Bytes::from_static(b"ab")))
        }
    }

    fn counted(left: usize, fails: bool) -> (Counted, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let source = Counted {
            left,
            fails,
            made: Arc::clone(&made),
        };
        (source, made)
    }

    #[tokio::test]
    async fn what_fits_one_piece_has_a_length_and_more_has_an_end() {
        for (pieces, exact) in [(0, Some(0)), (1, Some(2)), (2, None), (9, None)] {
            let body = AnswerBody::of(counted(pieces, false).0).await.unwrap();
            assert_eq!(body.size_hint().exact(), exact);
            let whole = body.collect().await.unwrap().to_bytes();
            assert_eq!(whole.len(), 2 * pieces);
        }
    }

    #[tokio::test]
    async fn an_early_error_is_told_and_a_late_one_is_no_end() {
        for pieces in [0, 1] {
            assert!(AnswerBody::of(counted(pieces, true).0).await.is_err());
        }
        for pieces in [2, 5] {
            let mut body = AnswerBody::of(counted(pieces, true).0).await.unwrap();
            for _ in 0..pieces {
                body.frame().await.unwrap().unwrap();
            }
            assert_eq!(body.frame().await.unwrap().unwrap_err(), BrokenOff);
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_pieces_are_made_ahead_and_a_stalled_client_is_cut_off() {
        let (source, made) = counted(1000, false);
        let mut body = AnswerBody::of(source).await.unwrap();
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(STALL_MAX / 2).await;
        // One is taken, two wait, one is made and has no place.
        assert_eq!(made.load(Ordering::SeqCst), PIECES_AHEAD_MAX + 2);
        tokio::time::sleep(STALL_MAX).await;
        assert_eq!(Arc::strong_count(&made), 1, "the source is gone");
        for _ in 0..PIECES_AHEAD_MAX {
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(body.frame().await.unwrap().unwrap_err(), BrokenOff);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_too_long_over_all_is_cut_off() {
        let long = Bytes::from(vec![b'x'; 100 * SLICE_BYTES]);
        let (_, kept) = counted(0, false);
        let deadline = Instant::now() + 3 * STALL_MAX;
        let source = Sliced::new(long, deadline, Arc::clone(&kept));
        let mut body = AnswerBody::of(source).await.unwrap();
        let mut taken = 0;
        let end = loop {
            tokio::time::sleep(STALL_MAX / 2).await;
            assert!(taken < 20, "it goes on and on");
            match body.frame().await.unwrap() {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
            let is_late = Instant::now() > deadline + STALL_MAX;
            assert!(!is_late || Arc::strong_count(&kept) == 1, "it is kept");
        };
        assert_eq!(end, BrokenOff);
        assert!(taken >= 6, "{taken}");
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn what_is_there_is_sent_whole() {
        let long = Bytes::from_iter((0..3 * SLICE_BYTES + 1).map(|at| at.to_le_bytes()[0]));
        let deadline = Instant::now() + STALL_MAX;
        let body = AnswerBody::of(Sliced::new(long.clone(), deadline, ())).await;
        assert_eq!(body.unwrap().collect().await.unwrap().to_bytes(), long);
        let late = AnswerBody::of(Sliced::new(long, Instant::now(), ())).await;
        assert_eq!(late.unwrap_err(), Overdue);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_ends_the_source_at_once() {
        let (source, made) = counted(1000, false);
        let body = AnswerBody::of(source).await.unwrap();
        drop(body);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&made), 1);
    }
}
