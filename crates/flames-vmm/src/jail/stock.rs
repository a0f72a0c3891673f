//! A few of what takes a moment to make, made before they are needed.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Things that are ready, and how to make another.
pub struct Stock<T> {
    ready: Mutex<Vec<T>>,
    /// Ready ones, and those that are being made.
    counted: AtomicUsize,
    wanted: usize,
}

impl<T> fmt::Debug for Stock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Stock<T> {
    /// An empty one, in which so many are to be ready.
    pub fn new(wanted: usize) -> Arc<Self> {
        Arc::new(Self { ready: Mutex::default(), counted: AtomicUsize::new(0), wanted })
    }

    /// One that is ready.
    pub fn take(&self) -> Option<T> {
        let taken = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        self.counted.fetch_sub(1, Ordering::AcqRel);
        Some(taken)
    }

    /// Makes what is lacking, one after another, where nobody waits for it. What cannot be made now is made when it
    /// is needed, and the reason is told then. Called inside a runtime.
    pub fn fill(self: &Arc<Self>, make: impl Fn() -> Option<T> + Send + 'static) {
        if !self.reserve() {
            return;
        }
        let stock = Arc::downgrade(self);
        tokio::task::spawn_blocking(move || {
            loop {
                let made = make();
                let Some(stock) = stock.upgrade() else { return };
                match made {
                    Some(made) => stock.ready.lock().unwrap_or_else(PoisonError::into_inner).push(made),
                    None => {
                        stock.counted.fetch_sub(1, Ordering::AcqRel);
                        return;
                    }
                }
                if !stock.reserve() {
                    return;
                }
            }
        });
    }

    fn reserve(&self) -> bool {
        let more = |counted: usize| (counted < self.wanted).then_some(counted + 1);
        self.counted.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_as_wanted_are_made_and_what_was_taken_is_made_anew() {
        let stock = Stock::new(2);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let fill = || {
            let tell = tell.clone();
            stock.fill(move || tell.send("made").ok().map(|()| "one"));
        };
        fill();
        for _ in 0..2 {
            told.recv().await.unwrap();
        }
        fill();
        // The last was announced a moment before it was there.
        while stock.take() != Some("one") {
            tokio::task::yield_now().await;
        }
        fill();
        assert_eq!(told.recv().await, Some("made"));
        assert!(told.try_recv().is_err(), "no more than that");
    }
}
