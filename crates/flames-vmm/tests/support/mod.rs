//! A factory of fake machines, honest or broken.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod broken;

use async_trait::async_trait;
use flames_vmm::conformance::{CONSOLE_LIMIT, Factory, Guest};
use flames_vmm::fake::FakeWorld;
use flames_vmm::{ExitCause, VmHandle, VmSpec, VmmDriver};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct FakeFactory {
    pub(crate) world: FakeWorld,
    pub(crate) folder: tempfile::TempDir,
    made: AtomicU32,
}

impl FakeFactory {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vmlinux"), "a kernel").unwrap();
        Self { world: FakeWorld::new(), folder, made: AtomicU32::new(0) }
    }
}

#[async_trait]
impl Factory for FakeFactory {
    fn driver(&self) -> Arc<dyn VmmDriver> {
        Arc::new(self.world.driver())
    }

    async fn spec(&self, guest: Guest) -> VmSpec {
        let id = format!("vm-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let run_dir = self.folder.path().join(&id);
        std::fs::DirBuilder::new().mode(0o700).create(&run_dir).unwrap();
        VmSpec {
            run_dir,
            kernel: self.folder.path().join("vmlinux"),
            kernel_args: vec![format!("flames.test={}", guest.name())],
            console_limit_bytes: CONSOLE_LIMIT,
            ..self.world.any_spec(&id)
        }
    }

    async fn crash(&self, handle: &VmHandle) {
        assert!(self.world.kill(&handle.id, ExitCause::Crashed { code: None, signal: Some(11) }));
    }

    async fn is_alive(&self, handle: &VmHandle) -> bool {
        self.world.is_alive(handle)
    }

    async fn small_disk(&self) -> Option<PathBuf> {
        let folder = self.folder.path().join("small");
        std::fs::create_dir(&folder).unwrap();
        self.world.set_full(&folder);
        Some(folder)
    }
}
