//! Calls that only the node makes.

use crate::agent::{Agent, Mode, Settings};
use crate::http::{Answer, Failure, json, read_unary, with_status};
use crate::system;
use flames_guest::control::{InitRequest, InitResponse, MIN_ENTROPY};
use flames_guest::rpc::{Code, RpcError};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::io;
use std::path::Path;
use zeroize::{Zeroize as _, Zeroizing};

/// Makes the guest this sandbox's. Everything is checked before anything is changed.
pub(crate) async fn init(agent: &Agent, request: Request<Incoming>) -> Result<Answer, Failure> {
    let mut init: InitRequest = read_unary(request).await?;
    check(agent, &init)?;
    let mut done = InitResponse::default();
    let applied = apply(agent, &init, &mut done);
    init.entropy.zeroize();
    init.access_token.zeroize();
    applied?;
    Ok(json(&done))
}

/// Rings for the end; the answer may still arrive.
pub(crate) fn shutdown(agent: &Agent) -> Answer {
    agent.shutdown.notify_one();
    with_status(StatusCode::ACCEPTED)
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
    agent
        .user(Some(name))
        .map(drop)
        .map_err(|error| RpcError::new(Code::InvalidArgument, format!("defaultUser: {error}")))
}

fn is_hostname(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with(['-', '.'])
}

/// Entropy comes first: what is drawn afterwards, such as the machine id, must not be the snapshot's.
fn apply(agent: &Agent, init: &InitRequest, done: &mut InitResponse) -> Result<(), RpcError> {
    let failed = |what: &'static str| {
        move |error: io::Error| RpcError::new(Code::Internal, format!("{what}: {error}"))
    };
    if agent.mode == Mode::Guest {
        apply_to_machine(init, done)?;
    }
    if init.renew_machine_id {
        system::renew_machine_id(&agent.root).map_err(failed("renew the machine id"))?;
    }
    if let Some(name) = &init.hostname {
        system::write_hostname(&agent.root, name).map_err(failed("write the hostname"))?;
    }
    remember(&mut agent.settings(), init);
    measure(agent, done);
    Ok(())
}

/// What belongs to the kernel, not to the file system.
fn apply_to_machine(init: &InitRequest, done: &mut InitResponse) -> Result<(), RpcError> {
    let failed = |what: &'static str| {
        move |error: nix::Error| RpcError::new(Code::Internal, format!("{what}: {error}"))
    };
    if let Some(bytes) = &init.entropy {
        system::credit_entropy(bytes).map_err(failed("credit entropy"))?;
        done.entropy_credited = true;
    }
    if init.time_unix_nanos > 0 {
        done.clock_step_nanos = system::step_clock(init.time_unix_nanos).map_err(failed("step the clock"))?;
        done.clock_stepped = true;
    }
    if let Some(name) = &init.hostname {
        nix::unistd::sethostname(name).map_err(failed("set the hostname"))?;
    }
    Ok(())
}

fn remember(settings: &mut Settings, init: &InitRequest) {
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
    done.machine_id = read_line(&agent.system_file("etc/machine-id"));
    done.boot_id = read_line(Path::new("/proc/sys/kernel/random/boot_id"));
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
