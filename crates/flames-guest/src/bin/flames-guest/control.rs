//! Calls that only the node makes.

use crate::agent::{Agent, Mode};
use crate::connections::Via;
use crate::http::{Answer, Failure, json, read_unary, with_status};
use crate::{neighbours, system};
use flames_guest::control::{Frozen, InitRequest, InitResponse, MIN_CONTROL_TOKEN, MIN_ENTROPY};
use flames_guest::rpc::{Code, RpcError};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use zeroize::{Zeroize as _, Zeroizing};

/// Makes the guest this sandbox's. Everything is checked before anything is changed.
///
/// Nothing of a restored guest's code is warm: whatever runs here for the first time is paid for before the
/// sandbox can be handed out. So nothing is read or written that is known to be right.
pub(crate) async fn init(agent: &Agent, request: Request<Incoming>, via: Via) -> Result<Answer, Failure> {
    let started = Instant::now();
    let mut init: InitRequest = read_unary(request).await?;
    check(agent, &init)?;
    let applied = apply(agent, &init, Arrival { via, started }).await;
    init.entropy.zeroize();
    init.access_token.zeroize();
    init.control_token.zeroize();
    let mut done = applied?;
    done.took_micros = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
    Ok(json(&done))
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    via: Via,
    started: Instant,
}

/// Rings for the end; the answer may still arrive.
pub(crate) fn shutdown(agent: &Agent) -> Answer {
    agent.shutdown.notify_one();
    with_status(StatusCode::ACCEPTED)
}

/// Stops all writing to the sandbox's disk, and tells what its memory alone holds.
pub(crate) async fn freeze(agent: &Arc<Agent>) -> Result<Answer, Failure> {
    let disk = Arc::clone(agent);
    let frozen = tokio::task::spawn_blocking(move || disk.freezer.freeze()).await;
    match frozen {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed("freeze the disk", &error).into()),
        Err(error) => return Err(failed("freeze the disk", &error).into()),
    }
    let settings = agent.settings().clone();
    Ok(json(&Frozen {
        env_vars: settings.env,
        default_user: settings.default_user,
        default_workdir: settings.default_workdir,
    }))
}

/// Lets the sandbox's disk be written to again.
pub(crate) fn thaw(agent: &Agent) -> Result<Answer, Failure> {
    agent.freezer.thaw().map_err(|error| failed("thaw the disk", &error))?;
    Ok(with_status(StatusCode::NO_CONTENT))
}

fn check(agent: &Agent, init: &InitRequest) -> Result<(), RpcError> {
    let invalid = |message: &str| Err(RpcError::new(Code::InvalidArgument, message));
    if init.access_token.is_none() && agent.settings().access_token.is_none() {
        return invalid("the first init must carry accessToken");
    }
    if init
        .access_token
        .as_ref()
        .is_some_and(|token| token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return invalid("accessToken must be printable ASCII without spaces");
    }
    if init.control_token.as_ref().is_some_and(|token| {
        token.len() < MIN_CONTROL_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic())
    }) {
        return invalid("controlToken must be at least 16 printable ASCII characters without spaces");
    }
    if init.entropy.as_ref().is_some_and(|bytes| bytes.len() < MIN_ENTROPY) {
        return invalid("entropy must be at least 32 bytes");
    }
    if init.time_unix_nanos < 0 {
        return invalid("timeUnixNanos must not be negative");
    }
    if init.hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
        return invalid("hostname must be 1 to 64 letters, digits, dots and dashes");
    }
    if init.default_workdir.as_deref().is_some_and(|path| !Path::new(path).is_absolute()) {
        return invalid("defaultWorkdir must be absolute");
    }
    check_environment(init)?;
    init.default_user.as_deref().map_or(Ok(()), |name| known_user(agent, name))
}

fn check_environment(init: &InitRequest) -> Result<(), RpcError> {
    let names = init.env_vars.iter().flatten();
    match names.into_iter().find(|(name, value)| !crate::process::is_variable(name, value)) {
        Some((name, _)) => {
            Err(RpcError::new(Code::InvalidArgument, format!("envVars: `{name}` cannot be a variable")))
        }
        None => Ok(()),
    }
}

fn known_user(agent: &Agent, name: &str) -> Result<(), RpcError> {
    let settings = agent.settings().clone();
    if settings.access_token.is_some() && settings.default_user == name {
        return Ok(()); // an earlier init looked
    }
    agent
        .user(Some(name))
        .map(drop)
        .map_err(|error| RpcError::new(Code::InvalidArgument, format!("defaultUser: {error}")))
}

fn is_hostname(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with(['-', '.'])
}

/// Entropy comes first: what is drawn afterwards, such as the machine id, must not be the snapshot's. The clock
/// comes last, so that nothing that follows makes it late.
async fn apply(agent: &Agent, init: &InitRequest, arrival: Arrival) -> Result<InitResponse, RpcError> {
    let mut done = InitResponse::default();
    renew_entropy(agent.mode, init, &mut done)?;
    if init.close_connections {
        leave_the_source_behind(agent, arrival.via, &mut done).await?;
    }
    remember(agent, init);
    done.control_token_replaced = init.control_token.is_some();
    rename(agent, init)?;
    if init.renew_machine_id {
        done.machine_id =
            system::renew_machine_id(&agent.root).map_err(|error| failed("renew the machine id", &error))?;
    }
    set_clock(agent.mode, init, arrival.started, &mut done)?;
    measure(agent, &mut done);
    Ok(done)
}

fn renew_entropy(mode: Mode, init: &InitRequest, done: &mut InitResponse) -> Result<(), RpcError> {
    if let (Mode::Guest, Some(bytes)) = (mode, &init.entropy) {
        system::credit_entropy(bytes).map_err(|error| failed("credit entropy", &error))?;
        done.entropy_credited = true;
    }
    Ok(())
}

/// Whoever had connections to the source has none to this guest.
async fn leave_the_source_behind(agent: &Agent, via: Via, done: &mut InitResponse) -> Result<(), RpcError> {
    done.connections_closed = agent.connections.reset_others(via).await;
    if agent.mode == Mode::Guest {
        neighbours::flush(via.peer).map_err(|error| failed("forget the neighbours", &error))?;
        done.neighbours_flushed = true;
    }
    Ok(())
}

/// The kernel's name for the guest is always set: somebody inside may have changed it. The files are only
/// written for a new name.
fn rename(agent: &Agent, init: &InitRequest) -> Result<(), RpcError> {
    let Some(name) = &init.hostname else { return Ok(()) };
    if agent.mode == Mode::Guest {
        nix::unistd::sethostname(name).map_err(|error| failed("set the hostname", &error))?;
    }
    if agent.settings().hostname.as_ref() == Some(name) {
        return Ok(());
    }
    system::write_hostname(&agent.root, name).map_err(|error| failed("write the hostname", &error))?;
    agent.settings().hostname = Some(name.clone());
    Ok(())
}

fn set_clock(
    mode: Mode,
    init: &InitRequest,
    started: Instant,
    done: &mut InitResponse,
) -> Result<(), RpcError> {
    if mode == Mode::Host || init.time_unix_nanos == 0 {
        return Ok(());
    }
    let spent = i64::try_from(started.elapsed().as_nanos()).unwrap_or_default();
    let now = init.time_unix_nanos.saturating_add(spent);
    done.clock_step_nanos = system::step_clock(now).map_err(|error| failed("step the clock", &error))?;
    done.clock_stepped = true;
    Ok(())
}

fn failed(what: &'static str, error: &dyn std::fmt::Display) -> RpcError {
    RpcError::new(Code::Internal, format!("{what}: {error}"))
}

fn remember(agent: &Agent, init: &InitRequest) {
    if let Some(token) = &init.control_token {
        agent.replace_control_token(Zeroizing::new(token.clone()));
    }
    let mut settings = agent.settings();
    if let Some(token) = &init.access_token {
        settings.access_token = Some(Zeroizing::new(token.clone()));
    }
    if let Some(env) = &init.env_vars {
        settings.env.clone_from(env);
    }
    if let Some(user) = &init.default_user {
        settings.default_user.clone_from(user);
    }
    if let Some(workdir) = &init.default_workdir {
        settings.default_workdir = Some(workdir.clone());
    }
}

fn measure(agent: &Agent, done: &mut InitResponse) {
    let settings = agent.settings().clone();
    done.time_unix_nanos = system::now_unix_nanos();
    done.access_token_set = settings.access_token.is_some();
    done.env_vars = u32::try_from(settings.env.len()).unwrap_or(u32::MAX);
    done.default_user = settings.default_user;
    done.default_workdir = settings.default_workdir.unwrap_or_default();
    done.hostname =
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if done.machine_id.is_empty() {
        done.machine_id = read_line(&agent.system_file("etc/machine-id"));
    }
    done.boot_id = agent.boot_id.clone();
    done.agent_version = env!("CARGO_PKG_VERSION").to_owned();
}

/// Empty when there is no such file: an image may lack a machine id.
fn read_line(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::is_hostname;

    #[test]
    fn hostnames_that_would_break_etc_hosts_are_refused() {
        for bad in ["", "a b", "a\n10.0.0.1 evil", "-a", ".", &"a".repeat(65)] {
            assert!(!is_hostname(bad), "{bad:?}");
        }
        assert!(is_hostname("sbx-0a.local"));
    }
}
