//! The frames of a stream: one flag byte, four bytes of length (big endian), then JSON.

use super::types::{GuestError, GuestErrorKind, GuestResult};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The agent sends at most 32 KiB of output per frame, base64-coded; anything larger is no agent of ours.
pub(super) const MAX_FRAME: usize = 1 << 20;
const HEADER: usize = 5;
const END_FLAG: u8 = 0x02;

/// One frame of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message.
    Message(Bytes),
    /// The last frame: `{}` or an error.
    End(Bytes),
}

/// Takes the first whole frame out of `buffer`, or leaves it untouched.
pub(super) fn take_frame(buffer: &mut BytesMut) -> GuestResult<Option<Frame>> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [flags, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(GuestError::new(
            GuestErrorKind::Internal,
            format!("frame of {length} bytes from the agent"),
        ));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    let body = buffer.split_to(length).freeze();
    Ok(Some(if flags & END_FLAG != 0 { Frame::End(body) } else { Frame::Message(body) }))
}

/// Wraps a message for the wire.
pub(super) fn encode(message: &[u8]) -> GuestResult<Bytes> {
    let length = u32::try_from(message.len())
        .map_err(|_| GuestError::new(GuestErrorKind::InvalidArgument, "message of 4 GiB or more"))?;
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..8),
            cut in 1usize..40,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take_frame(&mut buffer).unwrap() {
                    let Frame::Message(body) = frame else { panic!("no end was sent") };
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_frame_larger_than_the_limit_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(take_frame(&mut buffer).unwrap_err().kind(), GuestErrorKind::Internal);
    }

    #[test]
    fn the_last_frame_is_told_apart() {
        let mut buffer = BytesMut::from(&[2, 0, 0, 0, 2, b'{', b'}'][..]);
        assert_eq!(take_frame(&mut buffer).unwrap(), Some(Frame::End(Bytes::from_static(b"{}"))));
    }
}
