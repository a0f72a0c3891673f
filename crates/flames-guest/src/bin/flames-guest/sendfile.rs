//! Large files go from the page cache to the card without passing through the agent.
//!
//! Reading a file and writing it to a socket copies every byte twice, which in an emulated guest is nearly all that a
//! download costs. `sendfile(2)` copies none. The HTTP server has no word for it, so it is left for the time of the answer:
//! the connection is taken from it before it has written anything, and given to a new one afterwards.

use crate::files::blocking;
use crate::http::Answer;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Version};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

/// Smaller ones are not worth a change of hands.
pub(crate) const WORTHWHILE: u64 = 256 << 10;
/// The most that one call may send: it may have to read from the disk, and nobody waits for more than this.
const STEP: u64 = 4 << 20;

/// What an answer's body is, besides being the body: the part of a file.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    pub(crate) file: Arc<File>,
    pub(crate) range: Range<u64>,
}

/// An answer that is sent without the HTTP server.
#[derive(Debug)]
pub(crate) struct Handover {
    answer: Answer,
    part: FilePart,
}

impl Handover {
    /// Whether the answers to a request may be handed over: the connection must go on afterwards.
    pub(crate) fn suits<B>(request: &Request<B>) -> bool {
        request.version() == Version::HTTP_11 && !request.headers().contains_key(CONNECTION)
    }

    /// Of an answer whose body is a part of a file that is worth it; any other is given back.
    pub(crate) fn of(mut answer: Answer) -> Result<Self, Box<Answer>> {
        match answer.extensions_mut().remove() {
            Some(part) => Ok(Self { answer, part }),
            None => Err(Box::new(answer)),
        }
    }

    /// The same, after which the connection ends.
    pub(crate) fn last(mut self) -> Self {
        self.answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }

    /// Sends it whole, and gives the connection back unless this was its last answer.
    ///
    /// # Errors
    /// The client is gone, or the file has become shorter than was announced: the connection cannot be used again.
    pub(crate) async fn send(self, mut stream: TcpStream) -> io::Result<Option<TcpStream>> {
        stream.write_all(&head(&self.answer)).await?;
        let stream = Arc::new(stream);
        let mut range = self.part.range;
        while !range.is_empty() {
            stream.writable().await?;
            let (to, file, next) = (Arc::clone(&stream), Arc::clone(&self.part.file), range.clone());
            match blocking(move || step(&to, &file, next)).await? {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => range.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let is_last = self.answer.headers().contains_key(CONNECTION);
        Ok(Arc::into_inner(stream).filter(|_| !is_last))
    }
}

/// Sends what the socket takes at once, and says how much that was.
fn step(to: &TcpStream, file: &File, range: Range<u64>) -> io::Result<u64> {
    let count = usize::try_from((range.end - range.start).min(STEP)).unwrap_or(usize::MAX);
    let mut offset = range.start;
    let sent =
        to.try_io(Interest::WRITABLE, || Ok(rustix::fs::sendfile(to, file, Some(&mut offset), count)?))?;
    Ok(sent as u64)
}

/// The status line and the headers of RFC 9112.
fn head(answer: &Answer) -> Vec<u8> {
    let (status, date) = (answer.status(), httpdate::fmt_http_date(SystemTime::now()));
    let reason = status.canonical_reason().unwrap_or_default();
    let line = format!("HTTP/1.1 {} {reason}\r\ndate: {date}\r\n", status.as_str());
    let headers = answer
        .headers()
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    let mut head = line.into_bytes();
    headers.for_each(|bytes| head.extend_from_slice(bytes));
    head.extend_from_slice(b"\r\n");
    head
}
