//! What makes a guest somebody's: asked for by the node, acknowledged by the agent, checked here.
//!
//! The agent does everything on a boot and on a restore alike. What it does not acknowledge was not done, and the
//! guest is destroyed instead of handed out (hazards C1 to C4, C8, C11).

use super::give::Clock;
use crate::secret::random_bytes;
use crate::snapshot::GuestSettings;
use crate::{AccessToken, CreateVm, GuestClient, GuestError, GuestErrorKind, Identity};
use flames_guest::control::{InitRequest, InitResponse};
use flames_vmm::{Error, ErrorKind, Result, VmId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far a guest's clock may be from the host's when it is handed out (hazard C3).
const MAX_SKEW: Duration = Duration::from_millis(50);
/// How often the time is told again to a guest that was slow to hear it.
const TIMES_TOLD: usize = 10;

/// What a guest may hold of the one that it is a clone of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    /// Nothing: it booted, or took a handshake since it was restored.
    Nothing,
    /// Connections whose other end talks to somebody else, and link addresses (hazards C4, C11).
    Connections,
}

/// Everything that makes a guest what `request` asks for; `control` is the node's own token from then on.
pub(super) fn request(
    request: &CreateVm,
    control: &AccessToken,
    inherited: Inherited,
) -> Result<InitRequest> {
    Ok(InitRequest {
        entropy: Some(random_bytes::<32>()?.to_vec()),
        control_token: Some(control.expose().to_owned()),
        close_connections: inherited == Inherited::Connections,
        access_token: Some(request.access_token.expose().to_owned()),
        env_vars: request.env.clone(),
        hostname: Some(request.hostname.clone()),
        default_user: request.default_user.clone(),
        default_workdir: request.default_workdir.clone(),
        renew_machine_id: request.identity == Identity::New,
        time_unix_nanos: unix_nanos(), // last: every microsecond before the call is skew
    })
}

/// What a guest that was told `before` must still hear to be what `now` asks for; `None` if it knows everything.
pub(super) fn news(before: &CreateVm, now: &CreateVm, clock: Clock) -> Result<Option<InitRequest>> {
    let changed = |before: &Option<String>, now: &Option<String>| now.clone().filter(|_| before != now);
    let known = before.env == now.env
        && before.default_user == now.default_user
        && before.default_workdir == now.default_workdir;
    if known && clock == Clock::Ran {
        return Ok(None);
    }
    let base = match clock {
        Clock::StoodStill => wake_up()?,
        Clock::Ran => InitRequest { time_unix_nanos: unix_nanos(), ..InitRequest::default() },
    };
    Ok(Some(InitRequest {
        env_vars: now.env.clone().filter(|_| before.env != now.env),
        default_user: changed(&before.default_user, &now.default_user),
        default_workdir: changed(&before.default_workdir, &now.default_workdir),
        ..base
    }))
}

/// Tells a guest the time, and nothing else.
///
/// # Errors
/// Of the call: the agent is not well then.
pub(super) async fn tell_time(guest: &GuestClient, control: &AccessToken) -> Result<(), GuestError> {
    let time = InitRequest { time_unix_nanos: unix_nanos(), ..InitRequest::default() };
    guest.init(control, &time).await.map(drop)
}

/// What a guest needs that stood still for a while and goes on as it was.
pub(super) fn wake_up() -> Result<InitRequest> {
    let entropy = Some(random_bytes::<32>()?.to_vec());
    Ok(InitRequest { entropy, time_unix_nanos: unix_nanos(), ..InitRequest::default() })
}

/// Has a guest write everything out and freeze its disk.
///
/// # Errors
/// Of the call; `Unavailable` by an agent that does not know it.
pub(super) async fn freeze(run: &VmId, guest: &GuestClient, control: &AccessToken) -> Result<GuestSettings> {
    guest.freeze(control).await.map(GuestSettings).map_err(|error| match error.kind() {
        GuestErrorKind::NotFound | GuestErrorKind::Unimplemented => Error::new(
            ErrorKind::Unavailable,
            "guest",
            run.as_str(),
        )
        .operation("freeze")
        .source(error)
        .detail("its agent is older than pauses and snapshots of the disk alone: take one with its memory"),
        _ => refused(run, error),
    })
}

/// Asks, and makes sure that the agent did all of it.
///
/// A clock is as right as the time it took to tell it: a host that was busy for longer than the skew that is
/// promised tells it again.
///
/// # Errors
/// Of the call; `Internal` naming the first thing that was not done.
pub(super) async fn shake(
    run: &VmId,
    guest: &GuestClient,
    control: &AccessToken,
    init: &InitRequest,
) -> Result<()> {
    let refused = |error| refused(run, error);
    let mut answer = guest.init(control, init).await.map_err(refused)?;
    tracing::debug!(%run, took_us = answer.took_micros, closed = answer.connections_closed, "handshake");
    check(run, init, &answer)?;
    let control = init.control_token.clone().map_or_else(|| control.clone(), AccessToken::new);
    for _ in 0..TIMES_TOLD {
        if behind(&answer) <= MAX_SKEW {
            return Ok(());
        }
        let time = InitRequest { time_unix_nanos: unix_nanos(), ..InitRequest::default() };
        answer = guest.init(&control, &time).await.map_err(refused)?;
    }
    if behind(&answer) > MAX_SKEW {
        tracing::warn!(%run, behind = ?behind(&answer), "the host is busy: a guest's clock may be behind");
    }
    Ok(())
}

/// How far the guest's clock may be behind at most: the answer's way back is part of it.
fn behind(answer: &InitResponse) -> Duration {
    let nanos = unix_nanos().saturating_sub(answer.time_unix_nanos);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

/// # Errors
/// `Internal` naming the first thing that the agent did not do.
fn check(run: &VmId, asked: &InitRequest, answer: &InitResponse) -> Result<()> {
    let skew = i64::try_from(MAX_SKEW.as_nanos()).unwrap_or(i64::MAX);
    let earliest = asked.time_unix_nanos.saturating_sub(skew);
    let latest = unix_nanos().saturating_add(skew);
    let done = [
        ("its kernel did not take the entropy", asked.entropy.is_none() || answer.entropy_credited),
        (
            "it did not take the node's own token",
            asked.control_token.is_none() || answer.control_token_replaced,
        ),
        ("it did not take the access token", asked.access_token.is_none() || answer.access_token_set),
        (
            "it did not take the environment",
            asked.env_vars.as_ref().is_none_or(|env| u32::try_from(env.len()) == Ok(answer.env_vars)),
        ),
        ("it did not take its hostname", asked.hostname.as_ref().is_none_or(|name| *name == answer.hostname)),
        ("it kept its machine id", !asked.renew_machine_id || !answer.machine_id.is_empty()),
        ("its neighbour table was not flushed", !asked.close_connections || answer.neighbours_flushed),
        ("its clock is wrong", (earliest..=latest).contains(&answer.time_unix_nanos)),
    ];
    match done.into_iter().find(|(_, done)| !done) {
        None => Ok(()),
        Some((what, _)) => {
            Err(Error::new(ErrorKind::Internal, "guest", run.as_str()).operation("handshake").detail(what))
        }
    }
}

/// What an agent's refusal means for the create.
fn refused(run: &VmId, error: GuestError) -> Error {
    let kind = match error.kind() {
        GuestErrorKind::InvalidArgument | GuestErrorKind::NotFound => ErrorKind::InvalidInput,
        GuestErrorKind::Unavailable => ErrorKind::Unavailable,
        GuestErrorKind::DeadlineExceeded => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    };
    let detail = error.message().to_owned();
    Error::new(kind, "guest", run.as_str()).operation("handshake").detail(detail).source(error)
}

fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake that asks for everything, and the answer of an agent that did everything.
    fn complete() -> (InitRequest, InitResponse) {
        let asked = InitRequest {
            entropy: Some(vec![1; 32]),
            control_token: Some("control".into()),
            close_connections: true,
            access_token: Some("access".into()),
            env_vars: Some([("A".to_owned(), "B".to_owned())].into()),
            hostname: Some("i0".into()),
            renew_machine_id: true,
            time_unix_nanos: unix_nanos(),
            ..InitRequest::default()
        };
        let answer = InitResponse {
            time_unix_nanos: unix_nanos(),
            entropy_credited: true,
            control_token_replaced: true,
            access_token_set: true,
            env_vars: 1,
            hostname: "i0".into(),
            machine_id: "0123".into(),
            neighbours_flushed: true,
            ..InitResponse::default()
        };
        (asked, answer)
    }

    #[test]
    fn a_guest_that_did_everything_is_handed_out() {
        let (asked, answer) = complete();
        check(&VmId::parse("r1").unwrap(), &asked, &answer).unwrap();
    }

    type TakeAway = fn(&mut InitResponse);

    #[test]
    fn each_missing_acknowledgement_is_refused_by_its_name() {
        let (asked, whole) = complete();
        let lacking: [(&str, TakeAway); 8] = [
            ("entropy", |answer| answer.entropy_credited = false),
            ("own token", |answer| answer.control_token_replaced = false),
            ("access token", |answer| answer.access_token_set = false),
            ("environment", |answer| answer.env_vars = 0),
            ("hostname", |answer| answer.hostname = "other".into()),
            ("machine id", |answer| answer.machine_id = String::new()),
            ("neighbour", |answer| answer.neighbours_flushed = false),
            ("clock", |answer| answer.time_unix_nanos = 0),
        ];
        for (word, take_away) in lacking {
            let mut answer = whole.clone();
            take_away(&mut answer);
            let error = check(&VmId::parse("r1").unwrap(), &asked, &answer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }

    fn machine(env: &[(&str, &str)], user: &str) -> CreateVm {
        CreateVm {
            run: VmId::parse("r1").unwrap(),
            hostname: "i0".into(),
            from: crate::StartFrom::Template(crate::TemplateName::parse("mini").unwrap()),
            level: crate::BootLevel::Instant,
            identity: Identity::New,
            vcpus: 1,
            memory: flames_vmm::MiB(256),
            disk: flames_vmm::MiB(256),
            env: Some(env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()),
            access_token: AccessToken::new("access"),
            default_user: Some(user.into()),
            default_workdir: None,
            network: crate::EgressPolicy::default(),
            boot_deadline: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_guest_that_knows_everything_is_told_nothing() {
        let asked = machine(&[("A", "1")], "user");
        assert!(news(&asked, &asked, Clock::Ran).unwrap().is_none());
    }

    #[test]
    fn a_guest_is_told_what_differs_and_nothing_else() {
        let (before, now) = (machine(&[], "user"), machine(&[("A", "1")], "user"));
        let told = news(&before, &now, Clock::Ran).unwrap().unwrap();
        assert_eq!((told.env_vars, told.default_user), (now.env, None));
        assert_eq!((told.hostname, told.access_token, told.entropy), (None, None, None));
        let told = news(&before, &machine(&[], "root"), Clock::Ran).unwrap().unwrap();
        assert_eq!((told.env_vars, told.default_user.as_deref()), (None, Some("root")));
    }

    #[test]
    fn a_guest_that_stood_still_gets_time_and_entropy_even_if_it_knows_the_rest() {
        let asked = machine(&[], "user");
        let told = news(&asked, &asked, Clock::StoodStill).unwrap().unwrap();
        assert!(told.entropy.is_some() && told.time_unix_nanos > 0);
        assert_eq!((told.env_vars, told.hostname), (None, None));
    }

    #[test]
    fn what_was_not_asked_for_need_not_be_acknowledged() {
        let answer = InitResponse { time_unix_nanos: unix_nanos(), ..InitResponse::default() };
        let asked = InitRequest { time_unix_nanos: unix_nanos(), ..InitRequest::default() };
        check(&VmId::parse("r1").unwrap(), &asked, &answer).unwrap();
    }
}
