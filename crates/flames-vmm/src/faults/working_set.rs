//! The pages that guests of one snapshot touch first, in their order.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Pages of a snapshot's memory in the order in which a guest first touched them. Kept beside the snapshot, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkingSet {
    version: u32,
    memory_bytes: u64,
    page_bytes: u64,
    /// First page and number of pages of each run.
    runs: Vec<(u64, u64)>,
}

/// The form of this release; a record in another one is made anew.
const VERSION: u32 = 1;

/// Why a record is passed over.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is no record.
    #[error("it is no record of a working set: {0}")]
    Garbled(#[from] serde_json::Error),
    /// Another release wrote it.
    #[error("it is in form {0}, and this is {VERSION}")]
    Version(u32),
    /// It was made of another memory.
    #[error("it is about another memory")]
    Other,
}

impl WorkingSet {
    /// Of pages in the order in which they were touched.
    pub fn of(touched: impl IntoIterator<Item = u64>, page_bytes: u64, memory_bytes: u64) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for page in touched {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == page => *count += 1,
                _ => runs.push((page, 1)),
            }
        }
        Self { version: VERSION, memory_bytes, page_bytes, runs }
    }

    /// Reads a record, whoever wrote it, of a memory of so many bytes.
    ///
    /// # Errors
    /// When it is none, in another form, or names pages that this memory does not have.
    pub fn parse(text: &[u8], memory_bytes: u64) -> Result<Self, Unusable> {
        let set: Self = serde_json::from_slice(text)?;
        if set.version != VERSION {
            return Err(Unusable::Version(set.version));
        }
        let known = set.page_bytes.is_power_of_two() && set.page_bytes >= 4096;
        if set.memory_bytes != memory_bytes || !known {
            return Err(Unusable::Other);
        }
        let pages = memory_bytes / set.page_bytes;
        let fits = |(first, count): &(u64, u64)| first.checked_add(*count).is_some_and(|end| end <= pages);
        let all: u64 = set.runs.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count));
        // More than all of them says some twice.
        if all > pages || !set.runs.iter().all(fits) {
            return Err(Unusable::Other);
        }
        Ok(set)
    }

    /// As it is kept.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Runs of pages in their order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(first, count)| *first..first + count)
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// How many pages it names.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 64 << 20;

    #[test]
    fn neighbours_in_order_become_one_run() {
        let set = WorkingSet::of([7, 8, 9, 3, 2, 10], 4096, MEMORY);
        assert_eq!(set.runs().collect::<Vec<_>>(), [7..10, 3..4, 2..3, 10..11]);
        assert_eq!(set.pages(), 6);
    }

    #[test]
    fn a_record_of_another_form_or_memory_or_with_pages_too_many_is_none() {
        let whole = WorkingSet::of([1, 2], 4096, MEMORY);
        assert!(matches!(WorkingSet::parse(&whole.to_json().unwrap(), MEMORY / 2), Err(Unusable::Other)));
        let bad = [
            WorkingSet { version: 2, ..whole.clone() },
            WorkingSet { page_bytes: 0, ..whole.clone() },
            WorkingSet { page_bytes: 1000, ..whole.clone() },
            WorkingSet { runs: vec![(MEMORY / 4096, 1)], ..whole.clone() },
            WorkingSet { runs: vec![(u64::MAX, 2)], ..whole.clone() },
            WorkingSet { runs: vec![(0, 10_000), (0, 10_000)], ..whole },
        ];
        for set in bad {
            assert!(WorkingSet::parse(&set.to_json().unwrap(), MEMORY).is_err(), "{set:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_recorded_is_read_again(pages in proptest::collection::hash_set(0u64..16384, 0..200)) {
            let set = WorkingSet::of(pages.iter().copied(), 4096, MEMORY);
            let read = WorkingSet::parse(&set.to_json().unwrap(), MEMORY).unwrap();
            proptest::prop_assert_eq!(read.runs().flatten().collect::<Vec<_>>(), pages.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_record_that_was_cut_or_is_garbage_is_passed_over(garbage in proptest::collection::vec(0u8..=255, 0..200), cut in 0usize..60) {
            let whole = WorkingSet::of(0..100, 4096, MEMORY).to_json().unwrap();
            proptest::prop_assert!(WorkingSet::parse(&whole[..cut.min(whole.len() - 1)], MEMORY).is_err());
            proptest::prop_assert!(WorkingSet::parse(&garbage, MEMORY).is_err());
        }
    }
}
