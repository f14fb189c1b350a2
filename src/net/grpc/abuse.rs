//! Follows HTTP/2 frames by their headers, and counts what a peer may do only so often.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

use tokio::time::Instant;

/// The preface that a client's first frame comes after.
const CLIENT_PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const ACK: u8 = 0x1;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Pings nearer to each other than this are too near while calls are under way. grpc-go has 10 s,
/// which is also the interval of its clients, whose timers jitter.
pub(super) const PING_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The same while there are none, as grpc-go without PermitWithoutStream.
const IDLE_PING_INTERVAL_MIN: Duration = Duration::from_secs(2 * 3600);
/// Pings too near that are forgiven; sending data or headers forgives all.
pub(super) const PING_STRIKES_MAX: u32 = 2;
/// Streams that a peer may reset within [`RESETS_PERIOD`]: a querier that gives up on a whole
/// dashboard resets some dozens.
pub(super) const RESETS_MAX: u32 = 1000;
const RESETS_PERIOD: Duration = Duration::from_secs(10);

/// The start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameStart {
    kind: u8,
    flags: u8,
}

/// Follows frames through bytes that come in pieces, remembering only where it is.
#[derive(Debug)]
pub(super) struct FrameFollower {
    /// Bytes before the next frame header.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    filled: usize,
    last_stream: u32,
}

/// What a peer did too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    Pings,
    Resets,
}

/// Counts against a peer.
#[derive(Debug, Default)]
pub(super) struct AbuseGuard {
    last_ping: Option<Instant>,
    strikes: u32,
    period: Option<Instant>,
    resets: u32,
}

// === impl FrameFollower ===

impl FrameFollower {
    /// For what a client sends, from its first byte on.
    pub(super) fn after_client_preface() -> Self {
        Self {
            skip: CLIENT_PREFACE_BYTES,
            ..Self::at_frame()
        }
    }

    /// For bytes that begin with a frame.
    pub(super) fn at_frame() -> Self {
        Self {
            skip: 0,
            header: [0; FRAME_HEADER_BYTES],
            filled: 0,
            last_stream: 0,
        }
    }

    /// Follows `bytes`, calling `on_frame` at each frame whose header is whole.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(FrameStart)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let run = self.skip.min(bytes.len());
                self.skip = self.skip.saturating_sub(run);
                bytes = bytes.get(run..).unwrap_or_default();
                continue;
            }
            let missing = self.header.get_mut(self.filled..).unwrap_or_default();
            let run = missing.len().min(bytes.len());
            let (now, rest) = bytes.split_at(run);
            for (to, from) in missing.iter_mut().zip(now) {
                *to = *from;
            }
            bytes = rest;
            self.filled = self.filled.saturating_add(run);
            if self.filled == FRAME_HEADER_BYTES {
                self.filled = 0;
                on_frame(self.start_frame());
            }
        }
    }

    fn start_frame(&mut self) -> FrameStart {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
        self.skip = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).unwrap_or(usize::MAX);
        if kind == HEADERS {
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
            self.last_stream = self.last_stream.max(stream);
        }
        FrameStart { kind, flags }
    }

    /// Whether the last frame is whole and the next has not begun.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.bytes_to_boundary() == 0
    }

    /// Bytes that the header or the payload under way lacks.
    pub(super) fn bytes_to_boundary(&self) -> usize {
        match self.filled {
            0 => self.skip,
            filled => FRAME_HEADER_BYTES.saturating_sub(filled),
        }
    }

    /// The highest stream that was opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }
}

// === impl AbuseGuard ===

impl AbuseGuard {
    /// Counts a frame from the peer.
    pub(super) fn on_incoming(
        &mut self,
        frame: FrameStart,
        now: Instant,
        has_calls: bool,
    ) -> Option<Abuse> {
        match frame.kind {
            PING if frame.flags & ACK == 0 => self.on_ping(now, has_calls),
            RST_STREAM => self.on_reset(now),
            _ => None,
        }
    }

    /// Counts a frame to the peer: one that got an answer may ping again.
    pub(super) fn on_outgoing(&mut self, frame: FrameStart) {
        if matches!(frame.kind, DATA | HEADERS) {
            self.strikes = 0;
            self.last_ping = None;
        }
    }

    fn on_ping(&mut self, now: Instant, has_calls: bool) -> Option<Abuse> {
        let interval_min = match has_calls {
            true => PING_INTERVAL_MIN,
            false => IDLE_PING_INTERVAL_MIN,
        };
        let last = self.last_ping.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) < interval_min) {
            self.strikes = self.strikes.saturating_add(1);
        }
        (self.strikes > PING_STRIKES_MAX).then_some(Abuse::Pings)
    }

    fn on_reset(&mut self, now: Instant) -> Option<Abuse> {
        let begun = *self.period.get_or_insert(now);
        if now.saturating_duration_since(begun) > RESETS_PERIOD {
            self.period = Some(now);
            self.resets = 0;
        }
        self.resets = self.resets.saturating_add(1);
        (self.resets > RESETS_MAX).then_some(Abuse::Resets)
    }
}

// === impl Abuse ===

impl Abuse {
    /// The debug data of the GOAWAY; the first is the word that grpc-go clients look for.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pings => "too_many_pings",
            Self::Resets => "too_many_resets",
        }
    }
}

/// The GOAWAY frame for a peer that did something too often.
pub(super) fn goaway(abuse: Abuse, last_stream: u32) -> Vec<u8> {
    goaway_frame(ENHANCE_YOUR_CALM, abuse.name(), last_stream)
}

/// The GOAWAY frame for a peer that does not begin as HTTP/2 does (RFC 9113 §3.4).
pub(super) fn goaway_no_preface() -> Vec<u8> {
    goaway_frame(PROTOCOL_ERROR, "no_http2_preface", 0)
}

fn goaway_frame(reason: u32, text: &str, last_stream: u32) -> Vec<u8> {
    let text = text.as_bytes();
    let length = u32::try_from(text.len().saturating_add(8)).unwrap_or(u32::MAX);
    let [_, l0, l1, l2] = length.to_be_bytes();
    let mut frame = vec![l0, l1, l2, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&reason.to_be_bytes());
    frame.extend_from_slice(text);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, l0, l1, l2] = (payload.len() as u32).to_be_bytes();
        let mut bytes = vec![l0, l1, l2, kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_split(
            frames in prop::collection::vec(
                (any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            split in 1usize..50, cut in 0usize..60,
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            let mut starts = Vec::new();
            for (kind, flags, payload) in &frames {
                bytes.extend(frame(*kind, *flags, 1, payload));
                starts.push(FrameStart { kind: *kind, flags: *flags });
            }
            let mut follower = FrameFollower::after_client_preface();
            let mut found = Vec::new();
            for run in bytes.chunks(split) {
                follower.feed(run, |start| found.push(start));
            }
            prop_assert_eq!(found, starts);
            prop_assert!(follower.is_at_boundary());

            let mut follower = FrameFollower::after_client_preface();
            let mut rest = &bytes[..bytes.len().saturating_sub(cut)];
            while !follower.is_at_boundary() && !rest.is_empty() {
                let (run, tail) = rest.split_at(follower.bytes_to_boundary().min(rest.len()));
                follower.feed(run, |_| {});
                rest = tail;
            }
        }
    }

    fn pings(guard: &mut AbuseGuard, seconds: &[u64], has_calls: bool) -> Option<Abuse> {
        let began = Instant::now();
        let ping = FrameStart {
            kind: PING,
            flags: 0,
        };
        let mut found = None;
        for at in seconds {
            let now = began + Duration::from_secs(*at);
            found = found.or(guard.on_incoming(ping, now, has_calls));
        }
        found
    }

    #[test]
    fn pings_are_tolerated_at_the_pace_of_clients_and_no_faster() {
        let every = |n: u64| (0..50).map(|i| i * n).collect::<Vec<u64>>();
        let mut fresh = AbuseGuard::default();
        assert_eq!(pings(&mut fresh, &every(10), true), None);
        assert_eq!(pings(&mut AbuseGuard::default(), &every(5), true), None);
        assert_eq!(
            pings(&mut AbuseGuard::default(), &every(4), true),
            Some(Abuse::Pings)
        );
        assert_eq!(pings(&mut AbuseGuard::default(), &[0, 1, 2], true), None);
        assert_eq!(
            pings(&mut AbuseGuard::default(), &[0, 1, 2, 3], true),
            Some(Abuse::Pings)
        );
        assert_eq!(
            pings(&mut AbuseGuard::default(), &[0, 60, 120], false),
            None
        );
        let minutes = [0, 60, 120, 180];
        assert_eq!(
            pings(&mut AbuseGuard::default(), &minutes, false),
            Some(Abuse::Pings)
        );
        assert_eq!(pings(&mut AbuseGuard::default(), &every(7200), false), None);
    }

    #[test]
    fn an_answer_forgives_and_acks_do_not_count() {
        let mut guard = AbuseGuard::default();
        for _ in 0..10 {
            assert_eq!(pings(&mut guard, &[0, 1, 2], true), None);
            guard.on_outgoing(FrameStart {
                kind: DATA,
                flags: 0,
            });
        }
        let ack = FrameStart {
            kind: PING,
            flags: ACK,
        };
        for _ in 0..10 {
            assert_eq!(guard.on_incoming(ack, Instant::now(), true), None);
        }
    }

    #[test]
    fn resets_are_counted_per_period() {
        let mut guard = AbuseGuard::default();
        let began = Instant::now();
        let reset = FrameStart {
            kind: RST_STREAM,
            flags: 0,
        };
        for period in 0..3 {
            let now = began + RESETS_PERIOD * period + Duration::from_millis(u64::from(period));
            for _ in 0..RESETS_MAX {
                assert_eq!(guard.on_incoming(reset, now, true), None);
            }
        }
        let now = began + RESETS_PERIOD * 2 + Duration::from_millis(3);
        assert_eq!(guard.on_incoming(reset, now, true), Some(Abuse::Resets));
    }

    #[test]
    fn the_goaway_carries_the_word_that_clients_look_for() {
        let bytes = goaway(Abuse::Pings, 5);
        assert_eq!(&bytes[..9], &[0, 0, 22, 7, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[9..17], &[0, 0, 0, 5, 0, 0, 0, 11]);
        assert_eq!(&bytes[17..], b"too_many_pings");
    }
}
