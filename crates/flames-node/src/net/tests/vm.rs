//! A real guest under QEMU, as root in it, between the test hosts.

use super::testbed::{METADATA, PRIVATE, PUBLIC, RESOLVER, Sniffer, Testbed, UPLINK};
use crate::{
    AccessToken, BootLevel, CreateVm, EgressPolicy, GuestClient, Identity, LocalNode, MiB, Node, NodeConfig,
    ProcessEvent, StartFrom, StartProcess, TemplateName, VmId,
};
use flames_egress::PolicySpec;
use flames_provider::conformance;
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn assets() -> Option<PathBuf> {
    let found = std::env::var_os("FLAMES_ASSETS").map(PathBuf::from);
    let found = found.filter(|assets| assets.join("images/mini.erofs").exists());
    if found.is_none() {
        conformance::skip("assets", "set FLAMES_ASSETS to a folder with kernel, agent and images");
    }
    found
}

fn policy(spec: PolicySpec) -> EgressPolicy {
    EgressPolicy::new(&spec).unwrap()
}

fn request(network: EgressPolicy) -> CreateVm {
    CreateVm {
        run: VmId::parse("run-1").unwrap(),
        hostname: "sandbox".into(),
        from: StartFrom::Template(TemplateName::parse("mini").unwrap()),
        level: BootLevel::Standard,
        identity: Identity::New,
        vcpus: 1,
        memory: MiB(256),
        disk: MiB(256),
        env: Some(Default::default()),
        access_token: AccessToken::new("0123456789abcdef"),
        default_user: Some("root".into()),
        default_workdir: None,
        network,
        boot_deadline: Duration::from_secs(60),
    }
}

/// What a shell command in the guest prints.
async fn run(guest: &GuestClient, command: &str) -> String {
    let process = StartProcess {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), command.into()],
        user: Some("root".into()),
        ..Default::default()
    };
    let mut events = guest.start(&process).await.unwrap();
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        if let ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) = event.unwrap() {
            text.extend(bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

/// Everything that root in a guest can try with the tools of its image, each ended after a second.
fn attempts() -> Vec<String> {
    let targets = PRIVATE.into_iter().chain([UPLINK[0], UPLINK[1], METADATA, Ipv4Addr::new(172, 16, 0, 1)]);
    let mut attempts: Vec<String> = targets
        .flat_map(|target| {
            [format!("ping -c 1 -W 1 {target}"), format!("timeout 1 nc {target} 80 </dev/null")]
        })
        .collect();
    attempts.extend(
        [
            "ip address add 198.51.100.77/32 dev eth0; ping -c 1 -W 1 -I 198.51.100.77 198.51.100.10; ip address del 198.51.100.77/32 dev eth0",
            "arping -c 1 -w 1 -U -I eth0 172.16.0.1; arping -c 1 -w 1 -I eth0 172.16.0.9",
            "ping -c 1 -W 1 -s 4000 198.51.100.10",
            "ping -6 -c 1 -W 1 ff02::1%eth0 >/dev/null", // it answers itself
            "ping -c 1 -W 1 255.255.255.255; ping -c 1 -W 1 224.0.0.1",
        ]
        .map(str::to_owned),
    );
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_guest_gets_nowhere_but_where_its_policy_lets_it() {
    let (Some(bed), Some(assets)) = (Testbed::new(), assets()) else { return };
    let data = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(data.path().join("data"), assets);
    config.uplink = super::testbed::config(&bed.uplink, "100.127.66.0/24");
    let driver = QemuDriver::new(QemuConfig::default());
    let node = LocalNode::open(config, Arc::new(driver)).unwrap();
    let id = node.create(request(EgressPolicy::default())).await.unwrap().run;
    let guest = node.guest(&id).await.unwrap();
    let (uplink, world) = (Sniffer::of(&bed.uplink), Sniffer::of(&bed.world));
    let public = format!("ping -c 1 -W 1 {PUBLIC}");
    for attempt in attempts().into_iter().chain([public.clone()]) {
        let told = run(&guest, &attempt).await;
        assert!(!told.contains("bytes from"), "{attempt}: {told}");
        assert_eq!((uplink.frames(), world.frames()), (vec![], vec![]), "{attempt}: {told}");
    }
    // With the internet the same attempts end as before, and an honest one arrives.
    let dns = vec![RESOLVER.to_string()];
    node.set_network(&id, policy(PolicySpec { internet: true, dns, ..PolicySpec::default() })).await.unwrap();
    for attempt in attempts() {
        let told = run(&guest, &attempt).await;
        assert!(!told.contains("bytes from"), "{attempt}: {told}");
        assert_eq!(world.frames(), Vec::<Vec<u8>>::new(), "{attempt}: {told}");
    }
    assert_eq!(run(&guest, "cat /etc/resolv.conf").await, "nameserver 172.16.0.1\n");
    let listener = bed.world.listen((PUBLIC, 8080));
    let greet = tokio::spawn(async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        stream.write_all(b"welcome\n").await.unwrap();
        from.ip()
    });
    let told = run(&guest, &format!("timeout 10 nc {PUBLIC} 8080 </dev/null")).await;
    assert_eq!(told, "welcome\n");
    assert_eq!(greet.await.unwrap(), UPLINK[0], "it arrives as the uplink");
    assert!(run(&guest, &public).await.contains("bytes from"));
    let traffic = node.traffic(&id).await.unwrap();
    assert!(traffic.sent.packets > 0 && traffic.received.packets > 0, "{traffic:?}");
    assert!(traffic.dropped.contains_key("special"), "{traffic:?}");
    node.set_network(&id, EgressPolicy::default()).await.unwrap();
    assert!(!run(&guest, &public).await.contains("bytes from"));
    node.destroy(&id).await.unwrap();
    node.shutdown().await;
    bed.assert_nothing_left().await;
}
