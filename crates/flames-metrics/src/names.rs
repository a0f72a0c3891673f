//! Names that users choose, kept few: a label with any number of values would fill the memory of whoever scrapes.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

/// The names seen so far. Beyond [`MOST`] of them a new one is shown as [`OTHER`].
#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<BTreeSet<Arc<str>>>);

/// How many names get series of their own.
pub(crate) const MOST: usize = 64;

/// What the names beyond [`MOST`] are shown as.
pub(crate) const OTHER: &str = "other";

impl Names {
    /// The name as a label.
    pub(crate) fn label(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let label: Arc<str> = if names.len() < MOST { name.into() } else { OTHER.into() };
        if names.len() < MOST {
            names.insert(Arc::clone(&label));
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_65th_name_is_other_and_the_first_64_keep_theirs() {
        let names = Names::default();
        for n in 0..MOST {
            assert_eq!(&*names.label(&format!("t{n}")), format!("t{n}"));
        }
        assert_eq!(&*names.label("one-more"), OTHER);
        assert_eq!(&*names.label("t0"), "t0");
    }
}
