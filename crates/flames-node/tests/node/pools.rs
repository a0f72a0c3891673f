//! Warm pools of real microVMs: they fill, hand out, replace what is unfit, and drain to nothing.

use crate::clones::skew_ms;
use crate::harness::{Home, request};
use flames_node::{
    AccessToken, BootLevel, BootPath, CreateVm, EgressPolicy, ErrorKind, FailurePoint, MiB, NetworkMode,
    Newcomer, Newcomers, Node, PoolConfig, PoolStatus, ProcessEvent, StartProcess, TakeReady, TemplateName,
    VmId,
};
use flames_pool::{Autoscale, Strategy, Tier, Tiers};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn home() -> Option<Home> {
    Home::real(NetworkMode::Namespaces, FailurePoint::none())
}

fn pool(tiers: Tiers) -> PoolConfig {
    PoolConfig {
        template: "mini".into(),
        vcpus: Some(1),
        memory_mib: Some(256),
        disk_mib: Some(256),
        minimum: 0,
        maximum: 8,
        tiers,
        refill_concurrency: 2,
        health_check_every_s: 1,
        autoscale: Autoscale::default(),
        ..PoolConfig::default()
    }
}

/// Members that call themselves `ahead-0`, `ahead-1` and so on.
fn newcomers() -> Arc<dyn Newcomers> {
    Arc::new(Numbered::default())
}

#[derive(Debug, Default)]
struct Numbered(AtomicU32);

impl Newcomers for Numbered {
    fn next(&self, _template: &TemplateName) -> flames_node::Result<Newcomer> {
        let name = format!("ahead-{}", self.0.fetch_add(1, Ordering::Relaxed));
        Ok(Newcomer {
            run: VmId::parse(&name)?,
            access_token: AccessToken::new(format!("token-of-{name}")),
            env: [("SANDBOX".to_owned(), name.clone())].into(),
            default_user: "root".into(),
            hostname: name,
        })
    }
}

fn take(env: &[(&str, &str)]) -> TakeReady {
    TakeReady {
        template: TemplateName::parse("mini").unwrap(),
        vcpus: 1,
        memory: MiB(256),
        disk: MiB(256),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        default_user: None,
        default_workdir: None,
        network: EgressPolicy::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_members_of_every_tier_are_handed_out_as_who_they_are() {
    let Some(home) = home() else { return };
    let none = Tiers { running: 0, paused: 0, prepared: 0 };
    let tiers = [
        ("running", Tiers { running: 1, ..none }),
        ("paused", Tiers { paused: 1, ..none }),
        ("prepared", Tiers { prepared: 1, ..none }),
    ];
    let (newcomers, mut seen) = (newcomers(), HashSet::new());
    for (tier, tiers) in tiers {
        // Its `date` tells nanoseconds.
        let template = TemplateName::parse("base").unwrap();
        let of_base = PoolConfig { template: "base".into(), maximum: 1, ..pool(tiers) };
        home.node.set_pool(of_base, Arc::clone(&newcomers)).await.unwrap();
        until(&home, |status| status.ready == 1).await;
        let created = home.node.take_ready(TakeReady { template, ..take(&[]) }).await.unwrap();
        eprintln!("{tier} {:?}", created.timings);
        assert_eq!(created.path, BootPath::Warm);
        assert_eq!(created.timings.agent_init_ms == 0.0, tier == "running", "{tier}: {:?}", created.timings);
        let text = says(
            &home,
            &created.run,
            "hostname; echo $SANDBOX; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1",
        )
        .await;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!((lines[0].as_str(), lines[1].as_str()), (created.run.as_str(), created.run.as_str()));
        assert!(seen.insert(lines[2].clone()) && seen.insert(lines[3].clone()), "{text}");
        let skew = skew_ms(&home.node.guest(&created.run).await.unwrap()).await;
        assert!(skew <= 50.0, "{tier}: the clock is {skew} ms off");
        // Or its successor would be what the next tier is taken from.
        home.node.remove_pool(&TemplateName::parse("base").unwrap()).await.unwrap();
    }
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_a_member_is_told_what_its_create_adds() {
    let Some(home) = home() else { return };
    home.node.set_pool(pool(Tiers { running: 1, ..Tiers::default() }), newcomers()).await.unwrap();
    until(&home, |status| status.ready == 1).await;
    let wish = TakeReady { default_workdir: Some("/tmp".into()), ..take(&[("GREETING", "hello")]) };
    let created = home.node.take_ready(wish).await.unwrap();
    assert!(created.timings.agent_init_ms > 0.0);
    let text = says(&home, &created.run, "echo $GREETING $SANDBOX; pwd").await;
    assert_eq!(text, format!("hello {}\n/tmp\n", created.run));
    // Another size than the pool's is not to be had.
    assert!(home.node.take_ready(TakeReady { memory: MiB(128), ..take(&[]) }).await.is_none());
    home.close().await;
}

/// Waits until the pool looks as `wanted` says.
async fn until(home: &Home, wanted: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    let looking = async {
        loop {
            let status = home.node.pools().await.remove(0);
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(120), looking).await;
    match found {
        Ok(status) => status,
        Err(_) => panic!("it never came: {:#?}", home.node.pools().await),
    }
}

async fn says(home: &Home, run: &flames_node::VmId, command: &str) -> String {
    let guest = home.node.guest(run).await.unwrap();
    let args = vec!["-c".into(), command.into()];
    let process = StartProcess { command: "/bin/sh".into(), args, ..Default::default() };
    let mut events = guest.start(&process).await.unwrap();
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        if let ProcessEvent::Stdout(bytes) = event.unwrap() {
            text.extend(bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_members_of_every_tier_become_the_sandbox_that_was_asked_for() {
    let Some(home) = home() else { return };
    home.node.set_pool(pool(Tiers { running: 1, paused: 1, prepared: 1 }), newcomers()).await.unwrap();
    until(&home, |status| status.ready == 3).await;
    let mut seen = HashSet::new();
    // The readiest tier first; each hand-out is refilled meanwhile, so the pool is held at nothing.
    home.node
        .set_pool(
            PoolConfig {
                maximum: 3,
                refill_concurrency: 1,
                ..pool(Tiers { running: 1, paused: 1, prepared: 1 })
            },
            newcomers(),
        )
        .await
        .unwrap();
    for (number, name) in ["one", "two", "three"].iter().enumerate() {
        let token = AccessToken::new(format!("token-of-{name}"));
        let asked =
            CreateVm { hostname: (*name).into(), access_token: token, ..request(&format!("run-{number}")) };
        let created = home.node.create(asked).await.unwrap();
        eprintln!("{} {:?}", created.why, created.timings);
        assert_eq!(created.path, BootPath::Warm, "{}", created.why);
        let text = says(
            &home,
            &created.run,
            "hostname; echo $GREETING; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1",
        )
        .await;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!((lines[0].as_str(), lines[1].as_str()), (*name, "hello"));
        assert!(seen.insert(lines[2].clone()) && seen.insert(lines[3].clone()), "{text}");
    }
    let status = until(&home, |status| status.ready == 3).await;
    assert_eq!((status.hits, status.misses, status.live), (3, 0, 3));
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_members_that_died_or_are_of_an_outdated_build_are_replaced() {
    let Some(home) = home() else { return };
    home.node.set_pool(pool(Tiers { running: 2, ..Tiers::default() }), newcomers()).await.unwrap();
    let full = until(&home, |status| status.ready == 2).await;
    assert_eq!(full.by_tier.get(&Tier::Running), Some(&2));
    // A member dies.
    let vms = home.root.path().join("data/vms");
    let member = std::fs::read_dir(&vms).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    let handle = std::fs::read(member.join("vmm.json")).unwrap();
    let handle: serde_json::Value = serde_json::from_slice(&handle).unwrap();
    let pid = rustix::process::Pid::from_raw(handle["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(&home, |status| status.refills == 3 && status.ready == 2).await;
    assert!(!member.exists(), "what was dead is gone");
    // Another size is another build: all are replaced.
    let bigger = PoolConfig { memory_mib: Some(128), ..pool(Tiers { running: 2, ..Tiers::default() }) };
    home.node.set_pool(bigger, newcomers()).await.unwrap();
    until(&home, |status| status.refills == 5 && status.ready == 2).await;
    let asked = CreateVm { memory: MiB(128), ..request("run-1") };
    assert_eq!(home.node.create(asked).await.unwrap().path, BootPath::Warm);
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_pool_is_emptied_when_it_is_removed_and_what_was_handed_out_stays() {
    let Some(home) = home() else { return };
    home.node.set_pool(pool(Tiers { running: 2, paused: 1, prepared: 1 }), newcomers()).await.unwrap();
    until(&home, |status| status.ready == 4).await;
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let name = TemplateName::parse("mini").unwrap();
    home.node.remove_pool(&name).await.unwrap();
    assert!(home.node.pools().await.is_empty());
    assert_eq!(home.node.remove_pool(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    let left: Vec<_> = std::fs::read_dir(home.root.path().join("data/vms")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(says(&home, &run, "echo alive").await, "alive\n");
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_levels_that_may_not_use_a_warm_vm_do_not() {
    let Some(home) = home() else { return };
    home.node.set_pool(pool(Tiers { running: 1, ..Tiers::default() }), newcomers()).await.unwrap();
    until(&home, |status| status.ready == 1).await;
    for (number, level) in
        [BootLevel::Standard, BootLevel::Fast, BootLevel::UltraFast].into_iter().enumerate()
    {
        let created =
            home.node.create(CreateVm { level, ..request(&format!("run-{number}")) }).await.unwrap();
        assert_eq!(created.path, BootPath::Cold, "{level}: {}", created.why);
    }
    let sub2 = home.node.create(CreateVm { level: BootLevel::Sub2Second, ..request("run-s") }).await.unwrap();
    assert!(!sub2.why.is_empty());
    home.close().await;
}

#[tokio::test]
async fn a_pool_with_mistakes_is_refused_with_all_of_them() {
    let Some(home) = home() else { return };
    let wrong = PoolConfig {
        minimum: 9,
        maximum: 8,
        refill_concurrency: 0,
        strategy: Strategy::RoundRobin,
        ..pool(Tiers::default())
    };
    let error = home.node.set_pool(wrong, newcomers()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let told = error.to_string();
    assert!(told.contains("minimum") && told.contains("refill_concurrency"), "{told}");
    let unknown = PoolConfig { template: "nope".into(), ..pool(Tiers::default()) };
    assert_eq!(home.node.set_pool(unknown, newcomers()).await.unwrap_err().kind(), ErrorKind::NotFound);
    home.close().await;
}
