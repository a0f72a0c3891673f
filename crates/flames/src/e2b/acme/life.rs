//! When a certificate is due, and when a failed try is made again: decisions, without a clock.

use std::time::Duration;

/// Before the second try. A server may count failures by the hour, and four fit into the first.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Life {
    /// How long until a third of it is left.
    pub(super) fn due_in(self, now: i64) -> Duration {
        let third = self.until.saturating_sub(self.from) / 3;
        let due = self.until.saturating_sub(third);
        Duration::from_secs(u64::try_from(due.saturating_sub(now)).unwrap_or(0))
    }
}

/// How long to wait after a failure that so many came before: twice as long each time.
pub(super) fn pause(before: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(before)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left() {
        let life = Life { from: 1000 * DAY, until: 1090 * DAY };
        let due_in = |day| life.due_in(day * DAY).as_secs();
        assert_eq!(due_in(1000), 60 * 24 * 3600);
        assert_eq!(due_in(1059), 24 * 3600);
        assert_eq!((due_in(1060), due_in(1089), due_in(2000)), (0, 0, 0));
    }

    #[test]
    fn a_short_life_and_one_without_sense_are_no_trouble() {
        assert_eq!(Life { from: 0, until: 6 * DAY }.due_in(DAY), Duration::from_secs(3 * 24 * 3600));
        assert_eq!(Life { from: 9 * DAY, until: 0 }.due_in(12 * DAY), Duration::ZERO);
        assert_eq!(Life { from: i64::MIN, until: i64::MAX }.due_in(i64::MAX), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_to_six_hours_and_stay() {
        let minutes: Vec<u64> = (0..9).map(|before| pause(before).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
