//! What long bodies may take of a node's memory, all together.
//!
//! A request or an answer is read whole before it goes on, so each has a length
//! that it may not exceed, but thousands of them at once would still be more than
//! a node has. Bodies from [`COUNTED_BYTES_MIN`] on are counted from their first
//! byte until the last part of them is written out or dropped, whoever keeps it;
//! one for which there is no room is refused. Shorter ones are bounded by the
//! number of connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use metrics::gauge;

/// Of all bodies that are counted.
pub const HELD_BYTES_MAX: usize = 256 << 20;
/// A body that is shorter is not counted.
pub const COUNTED_BYTES_MIN: usize = 64 << 10;

static NODE: Budget = Budget::new(HELD_BYTES_MAX);

/// There is no room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("long bodies take all the memory that they may take")]
pub struct Full;

#[derive(Debug)]
struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    const fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    fn take(&self, bytes: usize) -> Result<(), Full> {
        let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop).map_err(|_| Full)
    }
}

/// The part of one body that is being read. Dropped, its bytes are free again.
#[derive(Debug)]
pub struct Hold {
    budget: &'static Budget,
    bytes: usize,
}

impl Hold {
    /// For a body of this process of which nothing has been read.
    pub fn new() -> Self {
        Self { budget: &NODE, bytes: 0 }
    }

    /// So much of it has been read, in all.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes < COUNTED_BYTES_MIN || bytes <= self.bytes {
            return Ok(());
        }
        self.budget.take(bytes - self.bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// The whole body, which is counted as long as any part of it is in use.
    pub fn keep(self, body: Bytes) -> Bytes {
        if self.bytes == 0 {
            return body;
        }
        gauge!("mt_long_bodies_held_bytes").increment(self.bytes as f64);
        Bytes::from_owner(Kept { body, hold: self })
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

struct Kept {
    body: Bytes,
    hold: Hold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        gauge!("mt_long_bodies_held_bytes").decrement(self.hold.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max: usize) -> &'static Budget {
        Box::leak(Box::new(Budget::new(max)))
    }

    fn held(budget: &Budget) -> usize {
        budget.held.load(Ordering::Relaxed)
    }

    #[test]
    fn a_long_body_is_counted_until_its_last_part_is_gone() {
        let budget = budget(HELD_BYTES_MAX);
        let mut hold = Hold { budget, bytes: 0 };
        for read in [1, COUNTED_BYTES_MIN - 1, COUNTED_BYTES_MIN, 3 * COUNTED_BYTES_MIN] {
            hold.grow(read).unwrap();
        }
        assert_eq!(held(budget), 3 * COUNTED_BYTES_MIN);
        let body = Bytes::from(vec![b'x'; 3 * COUNTED_BYTES_MIN]);
        let kept = hold.keep(body.clone());
        assert_eq!(kept.as_ptr(), body.as_ptr(), "not copied");
        let part = kept.slice(5..6);
        drop(kept);
        assert_eq!(held(budget), 3 * COUNTED_BYTES_MIN, "a part is in use");
        drop(part);
        assert_eq!(held(budget), 0);
    }

    #[test]
    fn what_finds_no_room_holds_none_and_short_bodies_need_none() {
        let budget = budget(2 * COUNTED_BYTES_MIN);
        let mut first = Hold { budget, bytes: 0 };
        first.grow(2 * COUNTED_BYTES_MIN).unwrap();
        let mut second = Hold { budget, bytes: 0 };
        assert_eq!(second.grow(COUNTED_BYTES_MIN - 1), Ok(()));
        assert_eq!(second.grow(COUNTED_BYTES_MIN), Err(Full));
        drop(first);
        assert_eq!(second.grow(COUNTED_BYTES_MIN), Ok(()));
        drop(second);
        assert_eq!(held(budget), 0);
    }
}
