//! What each page of a guest's memory is: a pure decision over what has happened to it.

use std::ops::Range;

/// Memory of the VMM that is one stretch of the snapshot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// In the VMM's memory.
    pub(super) address: u64,
    /// Its first page in the snapshot.
    pub(super) first: u64,
    /// How many there are.
    pub(super) pages: u64,
}

/// All pages, by their numbers in the snapshot.
#[derive(Debug)]
pub(super) struct Pages {
    regions: Vec<Region>,
    page_bytes: u64,
    states: Vec<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// As the snapshot has it, and not there yet.
    #[default]
    Absent,
    /// It was filled.
    Filled,
    /// The guest gave it back: it is zero when it is touched again.
    Removed,
}

/// How a fault is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// With what the snapshot holds.
    Copy(u64),
    /// With zeroes.
    Zero(u64),
    /// It was filled meanwhile: whoever waits is woken.
    Wake(u64),
}

impl Pages {
    pub(super) fn new(regions: Vec<Region>, page_bytes: u64) -> Self {
        let pages: u64 = regions.iter().map(|region| region.pages).sum();
        let states = vec![State::default(); usize::try_from(pages).unwrap_or(0)];
        Self { regions, page_bytes, states }
    }

    /// `None` for an address that is in no region.
    pub(super) fn fault(&self, address: u64) -> Option<Answer> {
        let page = self.page(address)?;
        Some(match self.state(page) {
            State::Absent => Answer::Copy(page),
            State::Removed => Answer::Zero(page),
            State::Filled => Answer::Wake(page),
        })
    }

    /// Notes that these addresses were given back: the pages that they hold whole. Of the others something is kept.
    pub(super) fn removed(&mut self, start: u64, end: u64) {
        for region in self.regions.clone() {
            let bytes = region.pages * self.page_bytes;
            let (from, to) = (start.max(region.address), end.min(region.address + bytes));
            if from < to {
                let first = (from - region.address).div_ceil(self.page_bytes);
                let last = (to - region.address) / self.page_bytes;
                self.set(region.first + first..region.first + last.max(first), State::Removed);
            }
        }
    }

    pub(super) fn filled(&mut self, pages: Range<u64>) {
        self.set(pages, State::Filled);
    }

    /// The first stretch of these pages that is absent and in one region, at most `most` of them; and what comes after it.
    pub(super) fn absent(&self, pages: Range<u64>, most: u64) -> (Range<u64>, Range<u64>) {
        let is_absent = |page: &u64| self.state(*page) == State::Absent;
        let Some(first) = pages.clone().find(is_absent) else {
            return (pages.end..pages.end, pages.end..pages.end);
        };
        let region = self.regions.iter().find(|one| (one.first..one.first + one.pages).contains(&first));
        let end = region.map_or(first, |one| one.first + one.pages).min(pages.end).min(first + most);
        let end = (first..end).find(|page| !is_absent(page)).unwrap_or(end);
        (first..end, end.max(first + 1).min(pages.end)..pages.end)
    }

    /// Where a page is in the VMM's memory.
    pub(super) fn address(&self, page: u64) -> Option<u64> {
        let region = self.regions.iter().find(|one| (one.first..one.first + one.pages).contains(&page))?;
        Some(region.address + (page - region.first) * self.page_bytes)
    }

    fn page(&self, address: u64) -> Option<u64> {
        let inside = |one: &&Region| {
            address.checked_sub(one.address).is_some_and(|distance| distance / self.page_bytes < one.pages)
        };
        let region = self.regions.iter().find(inside)?;
        Some(region.first + (address - region.address) / self.page_bytes)
    }

    fn state(&self, page: u64) -> State {
        usize::try_from(page).ok().and_then(|page| self.states.get(page).copied()).unwrap_or(State::Filled)
    }

    fn set(&mut self, pages: Range<u64>, state: State) {
        let index = |page: u64| usize::try_from(page).unwrap_or(usize::MAX).min(self.states.len());
        let range = index(pages.start)..index(pages.end);
        if let Some(states) = self.states.get_mut(range) {
            states.fill(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const LOW: u64 = 0x1000_0000;
    const HIGH: u64 = 0x9000_0000;

    /// Pages 0 to 3, and 4 to 7 elsewhere.
    fn pages() -> Pages {
        let regions =
            vec![Region { address: LOW, first: 0, pages: 4 }, Region { address: HIGH, first: 4, pages: 4 }];
        Pages::new(regions, PAGE)
    }

    #[test]
    fn a_page_comes_from_the_snapshot_once_and_is_zero_after_it_was_given_back() {
        let mut pages = pages();
        assert_eq!(pages.fault(HIGH + PAGE + 17), Some(Answer::Copy(5)));
        pages.filled(5..6);
        assert_eq!(pages.fault(HIGH + PAGE), Some(Answer::Wake(5)));
        pages.removed(HIGH + PAGE, HIGH + 3 * PAGE);
        assert_eq!(pages.fault(HIGH + PAGE), Some(Answer::Zero(5)));
        assert_eq!(pages.fault(HIGH + 2 * PAGE), Some(Answer::Zero(6)), "also one that was never there");
        assert_eq!(pages.fault(HIGH + 3 * PAGE), Some(Answer::Copy(7)));
        assert_eq!(pages.fault(LOW - 1), None);
        assert_eq!(pages.fault(HIGH + 4 * PAGE), None);
    }

    #[test]
    fn what_is_fetched_ahead_leaves_out_what_is_there_and_what_was_given_back() {
        let mut pages = pages();
        pages.filled(1..2);
        pages.removed(HIGH, HIGH + PAGE);
        assert_eq!(pages.absent(0..8, 64), (0..1, 1..8));
        assert_eq!(pages.absent(1..8, 64), (2..4, 4..8));
        assert_eq!(pages.absent(4..8, 2), (5..7, 7..8));
        assert_eq!(pages.absent(4..5, 2), (5..5, 5..5));
    }

    #[test]
    fn a_page_of_which_only_a_part_is_given_back_stays_as_it_is() {
        let mut pages = pages();
        pages.removed(LOW + 1, LOW + 3 * PAGE - 1);
        let answers = [0, 1, 2].map(|page| pages.fault(LOW + page * PAGE));
        assert_eq!(answers, [Some(Answer::Copy(0)), Some(Answer::Zero(1)), Some(Answer::Copy(2))]);
        pages.removed(LOW + 1, LOW + 2);
        assert_eq!(pages.fault(LOW), Some(Answer::Copy(0)));
    }

    #[test]
    fn a_range_given_back_across_regions_is_cut_to_what_is_memory() {
        let mut pages = pages();
        pages.removed(0, u64::MAX);
        assert!(
            (0..8).all(|page| pages.address(page).and_then(|at| pages.fault(at)) == Some(Answer::Zero(page)))
        );
    }

    proptest::proptest! {
        #[test]
        fn fetching_ahead_visits_each_absent_page_once(filled in proptest::collection::vec(0u64..8, 0..8), most in 1u64..5) {
            let mut pages = pages();
            for page in &filled {
                pages.filled(*page..page + 1);
            }
            let (mut visited, mut rest) = (Vec::new(), 0..8);
            while !rest.is_empty() {
                let (stretch, after) = pages.absent(rest, most);
                proptest::prop_assert!(stretch.end - stretch.start <= most && !(stretch.start < 4 && stretch.end > 4));
                visited.extend(stretch);
                rest = after;
            }
            let absent: Vec<u64> = (0..8).filter(|page| !filled.contains(page)).collect();
            proptest::prop_assert_eq!(visited, absent);
        }
    }
}
