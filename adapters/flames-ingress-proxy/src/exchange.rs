//! The clock of one request and its answer: what moved last, and until when the next move is due.

use flames_ingress::Limits;
use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Shared by the request's body, the wait for the answer, the answer's body and the tunnel.
#[derive(Debug)]
pub(crate) struct Exchange {
    limits: Limits,
    started: Instant,
    /// Milliseconds after `started`.
    last_move: AtomicU64,
    upload: AtomicU8,
}

/// How far the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum UploadState {
    Running = 0,
    Whole = 1,
    TooLarge = 2,
}

/// Who kept the other side waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    Client,
    Upstream,
}

impl Exchange {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, started: Instant::now(), last_move: AtomicU64::new(0), upload: AtomicU8::new(0) }
    }

    /// A byte moved.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_move.store(now, Ordering::Relaxed);
    }

    pub(crate) fn set_upload(&self, state: UploadState) {
        self.touch();
        self.upload.store(state as u8, Ordering::Release);
    }

    pub(crate) fn upload(&self) -> UploadState {
        match self.upload.load(Ordering::Acquire) {
            0 => UploadState::Running,
            1 => UploadState::Whole,
            _ => UploadState::TooLarge,
        }
    }

    /// When silence becomes idleness.
    pub(crate) fn idle_deadline(&self) -> Instant {
        self.after_last_move(self.limits.idle_timeout)
    }

    /// Waits for the start of the answer, as long as the limits allow.
    pub(crate) async fn bound<T>(&self, answer: impl Future<Output = T>) -> Result<T, Late> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let (deadline, late) = self.answer_deadline();
            tokio::select! {
                biased;
                value = &mut answer => return Ok(value),
                () = sleep_until(deadline) => {}
            }
            // Bytes may have moved while we slept.
            if self.answer_deadline().0 <= Instant::now() {
                return Err(late);
            }
        }
    }

    /// Completes when nothing has moved for the idle timeout.
    pub(crate) async fn idle(&self) {
        while self.idle_deadline() > Instant::now() {
            sleep_until(self.idle_deadline()).await;
        }
    }

    /// While the request is on its way its sender must move; from its end on the answer is due.
    fn answer_deadline(&self) -> (Instant, Late) {
        match self.upload() {
            UploadState::Running => (self.idle_deadline(), Late::Client),
            _ => (self.after_last_move(self.limits.header_timeout), Late::Upstream),
        }
    }

    fn after_last_move(&self, timeout: Duration) -> Instant {
        self.started + Duration::from_millis(self.last_move.load(Ordering::Relaxed)) + timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let limits = Limits {
            header_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        Exchange::new(limits)
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_the_answer_starts_at_the_end_of_the_upload() {
        let exchange = exchange();
        tokio::time::advance(Duration::from_secs(4)).await;
        exchange.set_upload(UploadState::Whole);
        let before = Instant::now();
        assert_eq!(exchange.bound(std::future::pending::<()>()).await, Err(Late::Upstream));
        assert_eq!(before.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_upload_is_the_clients_fault() {
        assert_eq!(exchange().bound(std::future::pending::<()>()).await, Err(Late::Client));
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_counts_from_the_last_move() {
        let exchange = exchange();
        let before = Instant::now();
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                exchange.touch();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = exchange.idle() => {}
            () = moving => {}
        }
        assert_eq!(before.elapsed().as_secs(), 17);
    }
}
