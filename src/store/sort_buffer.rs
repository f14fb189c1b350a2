//! The memory for series that can't be sent as they come: one budget over all calls.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::StoreError;

/// What permits count, since a semaphore counts no bytes.
const UNIT_BYTES: u64 = 1024;
/// A semaphore's permits are limited; 4 TiB are enough.
const UNITS_MAX: u64 = u32::MAX as u64;

/// `--store.sort-buffer`.
#[derive(Clone, Debug)]
pub struct SortBuffer {
    units: Arc<Semaphore>,
    bytes_max: u64,
}

/// A call's part of the buffer; given back on drop.
#[derive(Debug)]
pub struct Lease {
    buffer: SortBuffer,
    /// Why the call needs it, for the error.
    why: &'static str,
    held: Option<OwnedSemaphorePermit>,
}

impl SortBuffer {
    /// A buffer of this many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let units = (bytes_max / UNIT_BYTES).min(UNITS_MAX);
        let units = usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            bytes_max,
        }
    }

    /// A part of it, empty as yet.
    pub fn lease(&self, why: &'static str) -> Lease {
        Lease {
            buffer: self.clone(),
            why,
            held: None,
        }
    }

    /// Bytes that no call holds.
    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT_BYTES
    }
}

impl Lease {
    /// Makes the part this large, in units of 1 KiB. Does not wait: calls that hold a part and
    /// wait for more would wait for each other.
    ///
    /// # Errors
    /// Where the buffer has not as much left.
    pub fn resize(&mut self, bytes: u64) -> Result<(), StoreError> {
        let wanted = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted < held {
            // Dropping what is split off gives it back.
            drop(
                self.held
                    .as_mut()
                    .and_then(|held_units| held_units.split(held - wanted)),
            );
        } else if wanted > held {
            let more = u32::try_from(wanted - held).ok();
            let units = Arc::clone(&self.buffer.units);
            let more = more.and_then(|more| units.try_acquire_many_owned(more).ok());
            let more = more.ok_or(StoreError::SortBuffer {
                why: self.why,
                bytes_max: self.buffer.bytes_max,
            })?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorClass;

    #[test]
    fn parts_come_from_one_budget_and_go_back() {
        let buffer = SortBuffer::new(10 * 1024 + 5);
        let mut first = buffer.lease("of the test");
        let mut second = buffer.lease("of the test");
        first.resize(4 * 1024 + 1).unwrap();
        assert_eq!(buffer.free_bytes(), 5 * 1024);
        second.resize(5 * 1024).unwrap();
        let error = first.resize(6 * 1024).unwrap_err();
        assert_eq!(error.class(), ErrorClass::ResourceExhausted);
        let text = error.to_string();
        assert!(text.contains("--store.sort-buffer (10245 bytes"), "{text}");
        assert!(text.contains("(of the test)"), "{text}");
        second.resize(1).unwrap();
        first.resize(6 * 1024).unwrap();
        drop(first);
        assert_eq!(buffer.free_bytes(), 9 * 1024);
        second.resize(0).unwrap();
        assert_eq!(buffer.free_bytes(), 10 * 1024);
        assert!(second.resize(u64::MAX).is_err());
    }
}
