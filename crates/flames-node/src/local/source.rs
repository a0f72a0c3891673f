//! What a machine starts from.

use crate::Template;
use crate::snapshot::{GuestFacts, Snapshot};
use flames_vmm::MiB;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What a machine starts from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The kernel, into this image, with an empty disk or one that a snapshot holds.
    Image(Arc<Image>),
    /// Where this snapshot was taken.
    Snapshot(Arc<Snapshot>),
}

/// A template with what it is booted with.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) template: Template,
    pub(super) agent: PathBuf,
    pub(super) agent_sha256: String,
    pub(super) kernel_sha256: String,
    /// The snapshot whose disk it begins with; without one the disk is empty.
    pub(super) disk: Option<Arc<Snapshot>>,
}

/// The read-only disks that a guest has mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Images {
    pub(super) agent: PathBuf,
    pub(super) image: PathBuf,
}

impl Image {
    /// What a guest of this size will be, but for the agent's version, which it tells itself.
    pub(super) fn guest(&self, vcpus: u8, memory: MiB, disk: MiB) -> GuestFacts {
        GuestFacts {
            template: self.template.name.clone(),
            template_sha256: self.template.sha256.clone(),
            kernel_sha256: self.kernel_sha256.clone(),
            agent_sha256: self.agent_sha256.clone(),
            agent_version: String::new(),
            vcpus,
            memory,
            disk,
            start_up: self.template.start_up.clone(),
        }
    }
}

impl Source {
    pub(super) fn images(&self) -> Images {
        match self {
            Self::Image(image) => Images { agent: image.agent.clone(), image: image.template.image.clone() },
            Self::Snapshot(snapshot) => Images { agent: snapshot.agent_disk(), image: snapshot.image_disk() },
        }
    }

    /// The snapshot that it begins with, of memory and disk or of the disk alone.
    pub(super) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Image(image) => image.disk.as_ref(),
            Self::Snapshot(snapshot) => Some(snapshot),
        }
    }

    /// What is known of the guest; of an image no size and no version.
    pub(super) fn guest_facts(&self) -> GuestFacts {
        match self {
            Self::Image(image) => image.guest(0, MiB(0), MiB(0)),
            Self::Snapshot(snapshot) => snapshot.manifest.guest.clone(),
        }
    }

    /// The folder of the snapshot that the machine maps.
    pub(super) fn base(&self) -> Option<PathBuf> {
        match self {
            Self::Image(_) => None,
            Self::Snapshot(snapshot) => Some(snapshot.dir().to_owned()),
        }
    }

    pub(super) fn into_base(self) -> Option<Arc<Snapshot>> {
        match self {
            Self::Image(_) => None,
            Self::Snapshot(snapshot) => Some(snapshot),
        }
    }
}
