//! A page-fault handler: fills a restored guest's memory page by page, in a process of its own per VM.
//!
//! Its VMM hands it a userfaultfd (`uffd`) over a unix socket (`client`). From then on a page that the guest lacks is
//! read from the snapshot and put into the VMM's memory; what an earlier guest of this snapshot touched first is fetched
//! ahead (`server`). What a page is to be filled with is decided in `pages`. What the process was started with is in
//! [`flames_vmm::faults`]; it gives up everything else before it listens (`jail`).
//!
//! It ends well when its VMM has ended, however that came about, and with an error when it cannot go on: whoever watches
//! it ends the VM then, whose guest would wait for ever.

mod client;
mod jail;
mod pages;
mod server;
mod uffd;

use flames_vmm::faults::{Orders, READY};
use std::io::Write;
use std::process::ExitCode;

/// Serves the VMM of the process that starts this one with these orders, until that has ended. To be called first of
/// all in a process, while it has one thread.
pub fn serve(orders: &str) -> ExitCode {
    match try_serve(orders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads_it = writeln!(std::io::stderr(), "the page-fault handler ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a handler cannot go on.
#[derive(Debug, thiserror::Error)]
enum FaultsError {
    #[error("its orders are none: {0}")]
    Orders(#[from] serde_json::Error),
    #[error("it cannot be confined: {0}")]
    Jail(#[source] std::io::Error),
    #[error("it cannot say that it listens: {0}")]
    Ready(#[source] std::io::Error),
    #[error("the VMM's hand-over cannot be used: {0}")]
    Client(#[from] client::ClientError),
    #[error("{0}")]
    Serve(#[from] server::ServeError),
}

fn try_serve(orders: &str) -> Result<(), FaultsError> {
    let orders: Orders = serde_json::from_str(orders)?;
    let given = client::Given::take();
    jail::confine(orders.jail.as_ref()).map_err(FaultsError::Jail)?;
    let mut out = std::io::stdout();
    out.write_all(&[READY]).and_then(|()| out.flush()).map_err(FaultsError::Ready)?;
    let ahead = given.working_set()?;
    let Some(client) = client::await_client(&given)? else { return Ok(()) };
    server::Server::new(given, client, ahead.as_ref(), &orders).run()?;
    Ok(())
}
