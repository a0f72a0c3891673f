//! A part of a blob.

use flames_provider::{Error, ErrorKind, Result};
use std::ops::Range;

/// At least one byte, from an offset; it may end behind the blob's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to, not including, `end`.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or reversed range.
    pub fn new(start: u64, end: u64) -> Result<Self> {
        if start < end {
            return Ok(Self { start, end });
        }
        let detail = "a range ends behind its start";
        Err(Error::new(ErrorKind::InvalidInput, "byte range", format!("{start}..{end}")).detail(detail))
    }

    /// All bytes from `start`.
    pub fn starting_at(start: u64) -> Self {
        Self { start: start.min(u64::MAX - 1), end: u64::MAX }
    }

    /// Offset of the first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// Offset behind the last byte; `u64::MAX` for all.
    pub fn end(self) -> u64 {
        self.end
    }

    /// The bytes that a blob of `size` bytes has of this range.
    ///
    /// # Errors
    /// `InvalidInput` when it has none.
    pub fn within(self, size: u64) -> Result<Range<u64>> {
        if self.start < size {
            return Ok(self.start..self.end.min(size));
        }
        let id = format!("{}..{}", self.start, self.end);
        Err(Error::new(ErrorKind::InvalidInput, "byte range", id)
            .detail(format!("the blob has {size} bytes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_of_a_range_lies_within_it_and_within_the_blob(start: u64, end: u64, size: u64) {
            prop_assume!(start < end);
            match ByteRange::new(start, end).unwrap().within(size) {
                Ok(part) => {
                    prop_assert!(part.start == start && part.start < part.end);
                    prop_assert!(part.end == end || part.end == size);
                    prop_assert!(part.end <= size);
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), ErrorKind::InvalidInput);
                    prop_assert!(start >= size);
                }
            }
        }
    }

    #[test]
    fn an_empty_range_is_refused() {
        assert!(ByteRange::new(3, 3).is_err());
        assert!(ByteRange::new(4, 3).is_err());
    }
}
