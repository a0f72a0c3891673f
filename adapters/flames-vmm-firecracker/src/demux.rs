//! Two streams in one: the serial console carries the guest's text and the agent's records.
//!
//! A record is a line that begins with a control character that no program prints by accident:
//! `\x1eflames {"ready":true,...}\n`. It may begin behind text that ended in no newline, since the kernel
//! writes to the same line. Records are taken out; all else is the console.

/// What begins a record.
const MARK: &[u8] = b"\x1eflames ";
/// What is longer is no record: it is a console again.
const MAX_RECORD: usize = 4096;

/// Takes a stream apart, however it is cut into chunks.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    /// Bytes of what may become a record.
    held: Vec<u8>,
}

/// What a chunk held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) console: Vec<u8>,
    pub(crate) records: Vec<Vec<u8>>,
}

impl Demux {
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Parts {
        let mut parts = Parts::default();
        for &byte in chunk {
            self.take(byte, &mut parts);
        }
        parts
    }

    fn take(&mut self, byte: u8, parts: &mut Parts) {
        let inside = self.held.len() >= MARK.len();
        let goes_on = match inside {
            true => self.held.len() < MAX_RECORD,
            false => MARK.get(self.held.len()) == Some(&byte),
        };
        if inside && byte == b'\n' {
            let record = self.held.split_off(MARK.len());
            self.held.clear();
            parts.records.push(record);
        } else if goes_on {
            self.held.push(byte);
        } else {
            parts.console.append(&mut self.held);
            self.begin(byte, parts);
        }
    }

    /// The byte follows text.
    fn begin(&mut self, byte: u8, parts: &mut Parts) {
        match byte == MARK[0] {
            true => self.held.push(byte),
            false => parts.console.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(console: &[u8], records: &[&[u8]]) -> Parts {
        Parts { console: console.to_vec(), records: records.iter().map(|record| record.to_vec()).collect() }
    }

    #[test]
    fn records_are_taken_out_of_the_text_around_them() {
        let stream = b"boot\n[ 1.2] half a line\x1eflames {\"ready\":true}\r\ntick 1\n";
        let expected = parts(b"boot\n[ 1.2] half a linetick 1\n", &[b"{\"ready\":true}\r"]);
        assert_eq!(Demux::default().feed(stream), expected);
    }

    #[test]
    fn what_only_begins_like_a_record_is_console() {
        let stream = b"\x1e\x1eflam\n\x1eflames";
        let mut demux = Demux::default();
        assert_eq!(demux.feed(stream), parts(b"\x1e\x1eflam\n", &[]));
        assert_eq!(demux.feed(b" x\n"), parts(b"", &[b"x"]));
    }

    #[test]
    fn a_record_without_an_end_is_held_no_further_than_its_limit() {
        let mut demux = Demux::default();
        let mut stream = MARK.to_vec();
        stream.extend(std::iter::repeat_n(b'x', 3 * MAX_RECORD));
        let parts = demux.feed(&stream);
        assert!(parts.records.is_empty() && parts.console.len() == stream.len());
    }

    proptest::proptest! {
        #[test]
        fn how_the_stream_is_cut_changes_nothing(
            lines in proptest::collection::vec("(\x1e)?(\x1eflames )?[a-z ]{0,9}\n", 0..8), cut in 1usize..9,
        ) {
            let stream = lines.concat().into_bytes();
            let whole = Demux::default().feed(&stream);
            let (mut demux, mut pieces) = (Demux::default(), Parts::default());
            for chunk in stream.chunks(cut) {
                let Parts { console, records } = demux.feed(chunk);
                pieces.console.extend(console);
                pieces.records.extend(records);
            }
            proptest::prop_assert_eq!(whole, pieces);
        }
    }
}
