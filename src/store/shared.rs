//! Single flight: selects that differ only in their shard read Prometheus once.
//!
//! A distributed query asks for N shards of one selection at the same moment; each read on its own
//! would make Prometheus produce everything N times. Here the first call opens a *flight*, the
//! others join it while nothing of its beginning is gone. There is no task: whichever call needs
//! the next series pulls it into a window that all see, so a flight ends, and its connection is
//! closed, with its last call.
//!
//! The window is bounded. A call that falls behind by all of it holds up the others for
//! [`LAG_MAX`] at a time and [`LAG_TOTAL_MAX`] in all; then it is left behind and goes on with a
//! read of its own, from the series that it had last: sources are sorted, so what is to be skipped
//! is known. It lets go of the flight before it reads, since Prometheus may not take both.
//!
//! Only calls of one moment share: what a flight sees is as old as its beginning.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::upstream::{Select, Upstream};
use super::{ErrorClass, Part, Series, SeriesSource, StoreError};
use crate::model::ErrorChain;

/// How much of a flight its calls may be apart; part of one call's share.
pub(super) const WINDOW_BYTES_MAX: usize = 2 << 20;
/// How long a call that does not read on holds up the others.
pub(super) const LAG_MAX: Duration = Duration::from_secs(1);
/// How long a call that reads slowly holds up the others, all its stops together.
pub(super) const LAG_TOTAL_MAX: Duration = Duration::from_secs(5);
/// How long after its beginning a flight may be joined: the shards of a query come at once, and
/// another query is to see what Prometheus got meanwhile.
pub(super) const JOIN_WITHIN: Duration = Duration::from_secs(1);

/// The flights that are under way.
pub(super) struct Flights<S> {
    open: Mutex<Vec<Weak<Flight<S>>>>,
}

struct Flight<S> {
    select: Select,
    began: Instant,
    /// Opened by the first call that needs a series; gone at the end.
    source: tokio::sync::Mutex<Option<S>>,
    window: Mutex<Window>,
    /// A call has taken a series or left.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Window {
    series: VecDeque<Arc<Series>>,
    bytes: usize,
    /// The position of the first series that is still here.
    first: u64,
    end: Option<End>,
    /// The calls that were not left behind.
    calls: HashMap<u64, Reader>,
    calls_ever: u64,
    /// Until when the wait for calls at the beginning, if there is one, was charged to them.
    held_since: Option<Instant>,
}

/// A call as its flight sees it.
#[derive(Debug, Default)]
struct Reader {
    /// The position of the series that it takes next.
    at: u64,
    /// How long it has held up the others since it took a series.
    lag: Duration,
    /// How long altogether.
    lag_total: Duration,
}

#[derive(Clone, Debug)]
enum End {
    Whole { warnings: Vec<String> },
    Failed { message: String, class: ErrorClass },
}

/// One call's view of a flight.
pub(super) struct SharedSource<U: Upstream> {
    upstream: Arc<U>,
    place: Place<U::Source>,
    last: Option<Last>,
    warnings: Vec<String>,
}

/// Where a call gets its series.
enum Place<S> {
    Aboard(Seat<S>),
    /// From a read of its own, opened when the first series is needed.
    Alone {
        select: Select,
        source: Option<S>,
    },
}

/// A call's place in a flight, given up on drop.
struct Seat<S> {
    flight: Arc<Flight<S>>,
    call: u64,
}

/// What a call had last.
#[derive(Debug)]
struct Last {
    series: Arc<Series>,
    /// Of the chunks of earlier pieces of this series.
    earlier: HashSet<u64>,
}

/// What the window has for a call.
enum Step {
    Series(Arc<Series>),
    End(End),
    /// What it needs is gone.
    Behind,
    /// What it needs is not here yet.
    Ahead,
}

impl<S> Default for Flights<S> {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
        }
    }
}

impl<S: SeriesSource<Item = Series>> Flights<S> {
    /// Joins the flight of an equal selection, or begins one; whether it was there already.
    pub(super) fn join<U: Upstream<Source = S>>(
        &self,
        upstream: &Arc<U>,
        select: &Select,
    ) -> (SharedSource<U>, bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|flight| flight.strong_count() > 0);
        let mut joined = open.iter().filter_map(|flight| {
            let flight = flight.upgrade().filter(|f| f.select == *select)?;
            let call = flight.join()?;
            Some(Seat { flight, call })
        });
        let (seat, joined) = match joined.next() {
            Some(seat) => (seat, true),
            None => {
                let flight = Arc::new(Flight {
                    select: select.clone(),
                    began: Instant::now(),
                    source: tokio::sync::Mutex::new(None),
                    window: Mutex::default(),
                    moved: Notify::new(),
                });
                let call = flight.window().enter();
                (Seat { flight, call }, false)
            }
        };
        if !joined {
            open.push(Arc::downgrade(&seat.flight));
        }
        let source = SharedSource {
            upstream: Arc::clone(upstream),
            place: Place::Aboard(seat),
            last: None,
            warnings: Vec::new(),
        };
        (source, joined)
    }
}

impl<S: SeriesSource<Item = Series>> Flight<S> {
    /// Brings the next series into the window, unless another call just did.
    async fn pull<U: Upstream<Source = S>>(
        &self,
        upstream: &U,
        call: u64,
    ) -> Result<(), StoreError> {
        let mut source = self.source.lock().await;
        if !matches!(self.window().step(call), Step::Ahead) {
            return Ok(());
        }
        self.make_room().await;
        let next = match &mut *source {
            Some(source) => source.next().await,
            None => match upstream.read(&self.select).await {
                Ok(opened) => source.insert(opened).next().await,
                Err(error) => Err(error),
            },
        };
        let (end, outcome) = match next {
            Ok(Some(series)) => {
                self.window().push(series);
                return Ok(());
            }
            Ok(None) => {
                let warnings = source.as_mut().map(SeriesSource::take_warnings);
                let warnings = warnings.unwrap_or_default();
                (End::Whole { warnings }, Ok(()))
            }
            Err(error) => {
                let message = ErrorChain(&error).to_string();
                let class = error.class();
                (End::Failed { message, class }, Err(error))
            }
        };
        self.window().end = Some(end);
        *source = None;
        outcome
    }

    /// Waits for calls that are behind by the whole window, but not for long.
    async fn make_room(&self) {
        loop {
            let patience = match self.window().room() {
                Room::There => return,
                Room::Within(patience) => patience,
            };
            let _held_up = HeldUp::new(&self.window);
            // Whether one moved or the patience is at its end, the window is looked at again.
            let _either = timeout(patience, self.moved.notified()).await;
        }
    }
}

/// A wait for the calls at the window's beginning, until dropped.
struct HeldUp<'a>(&'a Mutex<Window>);

impl<'a> HeldUp<'a> {
    fn new(window: &'a Mutex<Window>) -> Self {
        let held_up = Self(window);
        held_up.window().held_since = Some(Instant::now());
        held_up
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        let mut window = self.window();
        window.charge();
        window.held_since = None;
    }
}

/// Whether the window can take a series.
enum Room {
    There,
    /// Not yet; after this time a call that is in the way has had its patience.
    Within(Duration),
}

impl<S> Flight<S> {
    /// A place for a new call; `None` where the flight is too old for it.
    fn join(&self) -> Option<u64> {
        match self.began.elapsed() < JOIN_WITHIN {
            true => self.window().join(),
            false => None,
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// A new call, which begins at the beginning; `None` where that is gone, or all is over.
    fn join(&mut self) -> Option<u64> {
        let whole_ahead = self.first == 0 && self.end.is_none();
        whole_ahead.then(|| self.enter())
    }

    fn enter(&mut self) -> u64 {
        let call = self.calls_ever;
        self.calls_ever += 1;
        self.calls.insert(call, Reader::default());
        call
    }

    fn step(&self, call: u64) -> Step {
        let reader = self.calls.get(&call);
        let Some(offset) = reader.and_then(|reader| reader.at.checked_sub(self.first)) else {
            return Step::Behind;
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match (self.series.get(offset), &self.end) {
            (Some(series), _) => Step::Series(Arc::clone(series)),
            (None, Some(end)) => Step::End(end.clone()),
            (None, None) => Step::Ahead,
        }
    }

    fn push(&mut self, series: Series) {
        self.bytes += series.memory_bytes();
        self.series.push_back(Arc::new(series));
    }

    /// Where the window is full, drops what every call has had, and leaves behind those whose
    /// patience is spent.
    fn room(&mut self) -> Room {
        while self.bytes > WINDOW_BYTES_MAX {
            let first = self.first;
            self.calls
                .retain(|_, reader| reader.at > first || !reader.patience().is_zero());
            let holding = self.calls.values().filter(|reader| reader.at <= first);
            if let Some(patience) = holding.map(Reader::patience).min() {
                return Room::Within(patience);
            }
            self.pop();
        }
        Room::There
    }

    /// Counts what is being waited against the calls that are waited for.
    fn charge(&mut self) {
        let Some(since) = &mut self.held_since else {
            return;
        };
        let now = Instant::now();
        let waited = now - *since;
        *since = now;
        let first = self.first;
        for reader in self.calls.values_mut().filter(|reader| reader.at <= first) {
            reader.lag += waited;
            reader.lag_total += waited;
        }
    }

    fn pop(&mut self) {
        if let Some(gone) = self.series.pop_front() {
            self.first += 1;
            self.bytes = self.bytes.saturating_sub(gone.memory_bytes());
        } else {
            self.bytes = 0;
        }
    }
}

impl Reader {
    /// How long it may still hold up the others.
    fn patience(&self) -> Duration {
        let at_a_time = LAG_MAX.saturating_sub(self.lag);
        at_a_time.min(LAG_TOTAL_MAX.saturating_sub(self.lag_total))
    }
}

impl<S> Seat<S> {
    /// What the window has for this call, which moves on where it is a series.
    fn step(&self) -> Step {
        let mut window = self.flight.window();
        let step = window.step(self.call);
        if let Step::Series(_) = &step {
            // Before it moves out of the way, and out of the charge.
            window.charge();
            if let Some(reader) = window.calls.get_mut(&self.call) {
                reader.at += 1;
                reader.lag = Duration::ZERO;
            }
            drop(window);
            self.flight.moved.notify_one();
        }
        step
    }
}

impl<S> Drop for Seat<S> {
    fn drop(&mut self) {
        self.flight.window().calls.remove(&self.call);
        self.flight.moved.notify_one();
    }
}

impl<U: Upstream> SharedSource<U> {
    fn note(&mut self, series: &Arc<Series>) {
        let series = Arc::clone(series);
        match &mut self.last {
            Some(last) if last.series.labels == series.labels => {
                last.earlier.extend(hashes(&last.series));
                last.series = series;
            }
            last => {
                *last = Some(Last {
                    series,
                    earlier: HashSet::new(),
                });
            }
        }
    }

    /// The next series of the flight; `None` where that goes on without this call.
    async fn next_aboard(&mut self) -> Option<Result<Option<Arc<Series>>, StoreError>> {
        loop {
            let Place::Aboard(seat) = &self.place else {
                return None;
            };
            match seat.step() {
                Step::Series(series) => {
                    self.note(&series);
                    return Some(Ok(Some(series)));
                }
                Step::End(End::Whole { warnings }) => {
                    self.warnings = warnings;
                    return Some(Ok(None));
                }
                Step::End(End::Failed { message, class }) => {
                    return Some(Err(StoreError::Shared { message, class }));
                }
                Step::Behind => {
                    tracing::debug!("a slow reader of a shared select goes on alone");
                    let select = seat.flight.select.clone();
                    // With the last seat the flight's connection is closed.
                    self.place = Place::Alone {
                        select,
                        source: None,
                    };
                }
                Step::Ahead => {
                    if let Err(error) = seat.flight.pull(&*self.upstream, seat.call).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The next series of the read of its own, from behind the one it had last.
    async fn next_alone(&mut self) -> Result<Option<Arc<Series>>, StoreError> {
        let Place::Alone { select, source } = &mut self.place else {
            return Ok(None);
        };
        let alone = match source {
            Some(source) => source,
            None => source.insert(self.upstream.read(select).await?),
        };
        while let Some(mut series) = alone.next().await? {
            let Some(last) = &self.last else {
                return Ok(Some(Arc::new(series)));
            };
            match series.labels.cmp(&last.series.labels) {
                Ordering::Less => continue,
                Ordering::Equal => {
                    let mut had: HashSet<u64> = hashes(&last.series).collect();
                    had.extend(&last.earlier);
                    let new = series.single_chunks();
                    let new = new.filter(|chunk| !had.contains(&chunk.hash()));
                    series.chunks = new.map(Part::Chunk).collect();
                    if series.chunks.is_empty() {
                        continue;
                    }
                }
                Ordering::Greater => self.last = None,
            }
            return Ok(Some(Arc::new(series)));
        }
        self.warnings = alone.take_warnings();
        Ok(None)
    }
}

fn hashes(series: &Series) -> impl Iterator<Item = u64> {
    series.single_chunks().map(|chunk| chunk.hash())
}

impl<U: Upstream> SeriesSource for SharedSource<U> {
    type Item = Arc<Series>;

    async fn next(&mut self) -> Result<Option<Arc<Series>>, StoreError> {
        match self.next_aboard().await {
            Some(next) => next,
            None => self.next_alone().await,
        }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
mod tests;
