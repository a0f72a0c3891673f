//! The thread that starts servers. The kernel's parent-death signal comes when the *thread* that made a
//! child ends, and a test's thread ends with the test; this one ends with the process.

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` as a child that dies with this process.
pub(crate) fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let (reply, child) = channel();
    let program = format!("{command:?}");
    SPAWNER.get_or_init(start).send((command, reply)).expect("the spawner thread never ends");
    child
        .recv()
        .expect("the spawner thread never ends")
        .unwrap_or_else(|error| panic!("start {program}: {error}"))
}

fn start() -> Sender<Order> {
    let (orders, received) = channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in received {
            // Nobody waits for the reply of a cancelled test.
            let _ = reply.send(command.spawn());
        }
    });
    orders
}
