//! The envelope of streaming calls: one byte of flags, the payload's length (4 bytes, big endian), the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Cuts a stream of bytes into [`Frame`]s, however the bytes were split on their way.
///
/// It holds at most one frame of the limit plus what was pushed last. After an error it gives nothing more:
/// there is no way to find the next frame.
///
/// ```
/// use flames_guest::frame::{FrameDecoder, encode, MESSAGE};
/// let mut decoder = FrameDecoder::new(1024);
/// let wire = encode(MESSAGE, b"{}");
/// decoder.push(&wire[..3]);
/// assert!(decoder.next_frame()?.is_none());
/// decoder.push(&wire[3..]);
/// assert_eq!(&decoder.next_frame()?.ok_or("whole")?.payload[..], b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    max_payload: usize,
    broken: Option<FrameError>,
}

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// [`MESSAGE`] or [`END_STREAM`].
    pub flags: u8,
    /// JSON.
    pub payload: Bytes,
}

impl Frame {
    /// Whether this is the last frame of its stream.
    pub fn is_end(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

/// Flags of an ordinary message.
pub const MESSAGE: u8 = 0;
/// Flags of the last frame: its payload is `{}` or `{"error":{...}}`.
pub const END_STREAM: u8 = 2;
/// The most bytes a payload may have, on both sides.
pub const MAX_PAYLOAD: usize = 4 << 20;

const COMPRESSED: u8 = 1;
const HEADER: usize = 5;

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than this side accepts.
    #[error("frame of {length} bytes is larger than {max}")]
    TooLarge {
        /// What the header says.
        length: usize,
        /// What is accepted.
        max: usize,
    },
    /// Compression was not agreed on.
    #[error("frame is compressed, and no compression was agreed on")]
    Compressed,
    /// Flags that this protocol does not know.
    #[error("frame has unknown flags {0:#04x}")]
    UnknownFlags(u8),
    /// The bytes end inside a frame.
    #[error("stream ends inside a frame")]
    Truncated,
}

impl FrameDecoder {
    /// Refuses payloads of more than `max_payload` bytes as soon as their header is there.
    pub fn new(max_payload: usize) -> Self {
        Self { buffer: BytesMut::new(), max_payload, broken: None }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// What [`FrameError`] says, again at every later call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.cut().inspect_err(|error| {
            self.broken = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame, or the error that broke the stream before.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.broken {
            Some(error) => Err(error),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(FrameError::Truncated),
        }
    }

    fn cut(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(&[flags, a, b, c, d]) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        check(flags, length, self.max_payload)?;
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(Frame { flags, payload: self.buffer.split_to(length).freeze() }))
    }
}

/// Refuses a frame by its header alone.
fn check(flags: u8, length: usize, max: usize) -> Result<(), FrameError> {
    if flags & COMPRESSED != 0 {
        return Err(FrameError::Compressed);
    }
    if flags & !END_STREAM != 0 {
        return Err(FrameError::UnknownFlags(flags));
    }
    if length > max {
        return Err(FrameError::TooLarge { length, max });
    }
    Ok(())
}

/// One frame as bytes. The payload is at most 4 GiB; both sides of this protocol stay far below.
pub fn encode(flags: u8, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut wire = BytesMut::with_capacity(HEADER + payload.len());
    wire.put_u8(flags);
    wire.put_u32(length);
    wire.extend_from_slice(payload);
    wire.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_in_pieces(wire: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = FrameDecoder::new(1 << 16);
        let mut frames = Vec::new();
        let mut rest = wire;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
            rest = later;
        }
        decoder.finish().map(|()| frames)
    }

    fn outcome(wire: &[u8], piece: usize) -> String {
        let mut decoder = FrameDecoder::new(16);
        let mut outcome = String::new();
        let mut end = Ok(());
        'stream: for piece in wire.chunks(piece) {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => outcome += &format!("{} ", frame.payload.len()),
                    Ok(None) => break,
                    Err(error) => {
                        end = Err(error);
                        break 'stream;
                    }
                }
            }
        }
        outcome
            + match end.and_then(|()| decoder.finish()) {
                Ok(()) => "whole",
                Err(FrameError::TooLarge { .. }) => "too large",
                Err(FrameError::Compressed) => "compressed",
                Err(FrameError::UnknownFlags(_)) => "unknown flags",
                Err(FrameError::Truncated) => "truncated",
            }
    }

    #[test]
    fn streams_of_the_corpus_give_what_they_always_gave_however_they_are_cut() {
        let corpus = include_str!("../corpus/frames.txt");
        for line in corpus.lines().filter(|line| !line.starts_with('#')) {
            let (hex, expected) = line.split_once("=> ").unwrap();
            let hex: String = hex.split_whitespace().collect();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let wire: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            for piece in [1, 3, 5, 1000] {
                assert_eq!(outcome(&wire, piece), expected, "{line} in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(0usize..64, 0..60),
        ) {
            let wire: Vec<u8> = payloads.iter().flat_map(|payload| encode(MESSAGE, payload)).collect();
            let frames = decode_in_pieces(&wire, &cuts).unwrap();
            let got: Vec<Vec<u8>> = frames.into_iter().map(|frame| frame.payload.to_vec()).collect();
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn garbage_gives_an_error_or_frames_and_never_grows_past_the_limit(
            garbage in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(0usize..64, 0..60),
        ) {
            if let Ok(frames) = decode_in_pieces(&garbage, &cuts) {
                let sum: usize = frames.iter().map(|frame| frame.payload.len() + HEADER).sum();
                prop_assert_eq!(sum, garbage.len());
            }
        }

        #[test]
        fn a_stream_that_ends_inside_a_frame_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..300), short in 1usize..5) {
            let wire = encode(MESSAGE, &payload);
            let got = decode_in_pieces(&wire[..wire.len() - short], &[]);
            prop_assert_eq!(got, Err(FrameError::Truncated));
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_header_alone() {
        let mut decoder = FrameDecoder::new(8);
        decoder.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge { max: 8, .. })));
        decoder.push(&encode(MESSAGE, b"x"));
        assert!(decoder.next_frame().is_err(), "nothing can be trusted after an error");
    }

    #[test]
    fn compressed_and_unknown_frames_are_refused() {
        for (flags, error) in [(1, FrameError::Compressed), (4, FrameError::UnknownFlags(4))] {
            let mut decoder = FrameDecoder::new(8);
            decoder.push(&encode(flags, b""));
            assert_eq!(decoder.next_frame(), Err(error));
        }
    }
}
