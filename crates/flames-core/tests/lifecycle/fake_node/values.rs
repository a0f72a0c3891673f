//! What every machine of the fake node is like.

use async_trait::async_trait;
use flames_node::{
    Contents, Dial, Error, ErrorKind, GuestStream, MiB, Result, RunFacts, RunInfo, SnapshotId, SnapshotInfo,
    TemplateName, VmId, VmState,
};

/// A guest that does not answer.
#[derive(Debug)]
pub(super) struct Nobody;

#[async_trait]
impl Dial for Nobody {
    async fn dial(&self) -> Result<GuestStream> {
        Err(Error::new(ErrorKind::Unavailable, "guest", "nobody"))
    }
}

pub(super) fn snapshot_info(id: SnapshotId) -> SnapshotInfo {
    SnapshotInfo {
        id,
        contents: Contents::default(),
        template: TemplateName::parse("mini").unwrap(),
        vcpus: 1,
        memory: MiB(256),
        disk: MiB(1024),
        size_bytes: 4096,
        created_unix: 1_700_000_000,
        driver: "fake".into(),
        vmm_version: "1".into(),
        clones: 0,
    }
}

pub(super) fn info(run: VmId) -> RunInfo {
    let facts = RunFacts {
        driver: "fake".into(),
        pid: 1,
        netns: None,
        host_port: None,
        run_dir: "/nowhere".into(),
        disk: "/nowhere/disk".into(),
        console: "/nowhere/console".into(),
        template: TemplateName::parse("mini").unwrap(),
        template_sha256: String::new(),
        agent_version: "0".into(),
    };
    RunInfo { run, state: VmState::Running, vcpus: 1, memory: MiB(256), disk: MiB(1024), facts }
}
