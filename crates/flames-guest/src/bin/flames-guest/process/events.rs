//! The way of a process's events to all who follow it.

use crate::http::message_frame;
use bytes::Bytes;
use flames_guest::process::{DataEvent, Empty, EndEvent, EventResponse, ProcessEvent, StartEvent};
use futures_util::future::join_all;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Gives each event to every subscriber, as a frame that was made once.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subscribers: Vec<mpsc::Sender<Item>>,
    end: Option<Bytes>,
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Output.
    Data(Bytes),
    /// The last one.
    End(Bytes),
}

/// Frames that may wait for one subscriber, each of at most 32 KiB of output.
const QUEUE: usize = 8;
/// How long one of several subscribers may hold the others up before it is left behind.
const PATIENCE: Duration = Duration::from_secs(5);

impl Hub {
    /// Follows from now on. After the end, only the end comes.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<Item> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut state = self.lock();
        match &state.end {
            // The queue is new: there is room.
            Some(end) => drop(sender.try_send(Item::End(end.clone()))),
            None => state.subscribers.push(sender),
        }
        receiver
    }

    /// Gives output to all, and waits for the slowest: whoever does not read holds the process up, like a pipe.
    /// But one that makes others wait for long is left behind: its stream ends with an error.
    pub(crate) async fn publish(&self, data: DataEvent) {
        let subscribers = self.lock().subscribers.clone();
        if subscribers.is_empty() {
            return;
        }
        let frame = event(ProcessEvent { data: Some(data), ..Default::default() });
        let patience = if subscribers.len() > 1 { PATIENCE } else { Duration::MAX };
        let send = |to: mpsc::Sender<Item>| {
            let frame = frame.clone();
            async move { to.send_timeout(Item::Data(frame), patience).await.is_err().then_some(to) }
        };
        let lost: Vec<_> = join_all(subscribers.into_iter().map(send)).await.into_iter().flatten().collect();
        if !lost.is_empty() {
            self.lock().subscribers.retain(|one| !lost.iter().any(|lost| lost.same_channel(one)));
        }
    }

    /// Gives the end to all, and to everyone who comes later.
    pub(crate) async fn finish(&self, end: EndEvent) {
        let frame = event(ProcessEvent { end: Some(end), ..Default::default() });
        let subscribers = {
            let mut state = self.lock();
            state.end = Some(frame.clone());
            std::mem::take(&mut state.subscribers)
        };
        // Those who went away do not need it.
        let _gone = join_all(subscribers.iter().map(|to| to.send(Item::End(frame.clone())))).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First frame of every stream.
pub(crate) fn start_frame(pid: u32) -> Bytes {
    event(ProcessEvent { start: Some(StartEvent { pid }), ..Default::default() })
}

/// A frame that only says that the stream is alive.
pub(crate) fn keepalive_frame() -> Bytes {
    event(ProcessEvent { keepalive: Some(Empty {}), ..Default::default() })
}

fn event(event: ProcessEvent) -> Bytes {
    message_frame(&EventResponse { event: Some(event) })
}
