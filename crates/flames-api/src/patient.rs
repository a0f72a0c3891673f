//! A connection with a client whose patience is bounded: one that never says what it wants, or never takes what it
//! is sent, is cut off. One that waits with nothing on the way may be as silent as it likes.
//!
//! One that is refused while it sends is heard out, for a while: a socket that is closed with bytes in it that nobody
//! read resets its connection, and a client that is busy with its body meets that before it has read why it was
//! refused. So the end is said, and what still comes is thrown away until the client has understood.

use crate::unread::Unread;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A client that takes nothing for this long, although something waits for it, is dropped.
pub(crate) const TAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// A client that sends on for longer than this after its answer does not want to know.
const LINGER: Duration = Duration::from_secs(5);
/// Thrown away at once.
const CHUNK: usize = 16 * 1024;
/// What a client of HTTP/2 says first. Until something else came it is open what the client speaks, and no other bound
/// holds yet.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    /// Bytes of the preface that came; `None` once it is known what the client speaks.
    preface: Option<usize>,
    say_timeout: Duration,
    saying: Timer,
    taking: Timer,
    /// Whether something is left to hear when the end comes.
    unread: Unread,
    /// Runs from the moment that the end was said.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// Runs while something is waited for.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl<S> Patient<S> {
    /// Waits `say_timeout` until the client said in what version it speaks.
    pub(crate) fn new(stream: S, say_timeout: Duration, unread: Unread) -> Self {
        Self {
            stream,
            preface: Some(0),
            say_timeout,
            saying: Timer::default(),
            taking: Timer::default(),
            unread,
            lingering: None,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.preface = self.preface.and_then(|heard| {
            let expected = PREFACE.get(heard..heard + bytes.len()).filter(|expected| *expected == bytes)?;
            Some(heard + expected.len()).filter(|heard| *heard < PREFACE.len())
        });
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Ready when the client has no more to say.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [0; CHUNK];
        loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Timer {
    /// The same poll, or an error when it has been pending for `timeout`.
    fn bound<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        timeout: Duration,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.0 = None;
            return polled;
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep(timeout)));
        sleep.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if this.preface.is_none() {
            return polled;
        }
        this.hear(&buffer.filled()[before..]);
        match this.preface {
            // Not begun anew by each byte.
            Some(_) if polled.is_ready() => polled,
            Some(_) => this.saying.bound(polled, this.say_timeout, context),
            None => {
                this.saying = Timer::default();
                polled
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.taking.bound(polled, TAKE_TIMEOUT, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.taking.bound(polled, TAKE_TIMEOUT, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        this.taking.bound(polled, TAKE_TIMEOUT, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            let polled = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.taking.bound(polled, TAKE_TIMEOUT, context))?;
            if !this.unread.is_noted() {
                return Poll::Ready(Ok(()));
            }
        }
        // Asked first: who sends faster than it is read leaves none of the task's budget, without which no timer ends.
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.poll_silence(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    const SAY: Duration = Duration::from_secs(10);

    fn patient(server: DuplexStream) -> Patient<DuplexStream> {
        Patient::new(server, SAY, Unread::default())
    }

    /// After a refusal.
    fn lingering<S>(server: S) -> Patient<S> {
        let unread = Unread::default();
        unread.note();
        Patient::new(server, SAY, unread)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_only_half_of_the_preface_is_cut_off() {
        for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
            let (mut client, server) = duplex(64);
            client.write_all(said).await.unwrap();
            let began = Instant::now();
            let error = patient(server).read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_of_one_byte_a_second_does_not_last() {
        let (mut client, server) = duplex(64);
        let trickle = async {
            for byte in PREFACE {
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.write_all(&[*byte]).await.unwrap();
            }
        };
        let mut server = patient(server);
        let mut heard = Vec::new();
        tokio::select! {
            () = trickle => panic!("all of it was heard"),
            read = server.read_to_end(&mut heard) => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_something_may_be_silent() {
        for said in [&b"GET"[..], PREFACE] {
            let (mut client, server) = duplex(64);
            client.write_all(said).await.unwrap();
            let mut server = patient(server);
            let long = tokio::time::timeout(100 * TAKE_TIMEOUT, server.read_to_end(&mut Vec::new())).await;
            assert!(long.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_takes_what_waits_is_cut_off_and_who_takes_a_little_is_not() {
        let (mut client, server) = duplex(64);
        let mut server = patient(server);
        let taking = async {
            for _ in 0..10 {
                tokio::time::sleep(TAKE_TIMEOUT / 2).await;
                client.read_u8().await.unwrap();
            }
            Instant::now()
        };
        let (last, written) = tokio::join!(taking, server.write_all(&[0; 1000]));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(last.elapsed() >= TAKE_TIMEOUT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_still_sending_is_heard_out_and_sees_the_end_at_once() {
        let (mut client, server) = duplex(64);
        let mut server = lingering(server);
        let client = tokio::spawn(async move {
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            client.write_all(&[7; 1 << 20]).await
        });
        server.shutdown().await.unwrap();
        drop(server);
        client.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_for_ever_is_not() {
        let (mut client, server) = duplex(64);
        let mut server = lingering(server);
        tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), LINGER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_client_that_was_heard_to_its_end() {
        let (_client, server) = duplex(64);
        let mut server = patient(server);
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// Always ready, as a socket is whose client sends faster than it is read.
    #[tokio::test]
    async fn who_sends_without_a_pause_is_not_heard_for_ever() {
        let mut server = lingering(tokio::io::join(tokio::io::repeat(7), tokio::io::sink()));
        server.lingering = Some(Box::pin(sleep(Duration::from_millis(50))));
        tokio::time::timeout(Duration::from_secs(30), server.shutdown()).await.unwrap().unwrap();
    }
}
