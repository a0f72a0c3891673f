//! What a VM is confined to: a directory with only what it needs, namespaces, and a user id of its own.
//!
//! The driver makes the namespaces and the mounts, on the thread that starts the jailer; the jailer changes the
//! root directory, makes the device nodes, sets limits, gives up root and becomes
//! Firecracker. So Firecracker is the daemon's own child, whose end and exit code it sees (the jailer's own way
//! to a pid namespace leaves it a stranger), and what is mounted for one VM exists in its namespace alone: it
//! goes with the process, whatever happens to the daemon.

use crate::files;
use crate::process::Confinement;
use crate::version::Release;
use flames_vmm::VmId;
use flames_vmm::jail::{Access, Mount, bind, enter_namespaces, enter_network, give_up_rights};
use flames_vmm::process::OPEN_FILES;
use nix::sys::stat::Mode;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Path, PathBuf};

/// A file that goes into a cage under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) access: Access,
}

/// Makes the run directory's pipes and the cage. With a user id it is a jail's: the files are mounted into it
/// when the VMM is started; without one they are linked.
pub(crate) fn furnish(
    run_dir: &Path,
    cage: &Path,
    items: &[Item],
    owner: Option<u32>,
) -> io::Result<Vec<Mount>> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(cage)?;
    for pipe in [run_dir.join(files::CONSOLE_IN), run_dir.join(files::CONSOLE_OUT)] {
        make_pipe(&pipe)?;
    }
    for pipe in [cage.join(files::LOG_PIPE), cage.join(files::METRICS_PIPE)] {
        make_pipe(&pipe)?;
        chown(&pipe, owner, owner)?;
    }
    replace_link(&cage.join(files::API), &run_dir.join(files::API))?;
    items.iter().filter_map(|item| place(cage, item, owner).transpose()).collect()
}

fn place(cage: &Path, item: &Item, owner: Option<u32>) -> io::Result<Option<Mount>> {
    let from = std::path::absolute(&item.file)?;
    let to = cage.join(&item.name);
    let Some(owner) = owner else {
        symlink(from, to)?;
        return Ok(None);
    };
    if item.access == Access::Write {
        chown(&from, Some(owner), Some(owner))?;
    }
    File::create(&to)?;
    Ok(Some(Mount { from, to, access: item.access }))
}

fn make_pipe(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600))?)
}

fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, link),
    }
}

/// The jailer's command line, up to Firecracker's own arguments.
pub(crate) fn jailer_arguments(id: &VmId, firecracker: &Path, run_dir: &Path, uid: u32) -> Vec<OsString> {
    let (uid, limit) = (uid.to_string(), format!("no-file={OPEN_FILES}"));
    let mut arguments: Vec<OsString> = vec!["--id".into(), id.as_str().into()];
    arguments.extend(["--exec-file".into(), firecracker.into()]);
    arguments.extend(["--chroot-base-dir".into(), run_dir.join(files::JAIL).into()]);
    arguments.extend(["--uid", &uid, "--gid", &uid, "--resource-limit", &limit].map(OsString::from));
    arguments.push("--".into());
    arguments
}

/// Puts this thread, and so what it starts, where the VM belongs.
pub(crate) fn enter(confinement: &Confinement) -> io::Result<()> {
    match confinement {
        Confinement::Open { net } => {
            enter_network(net)?;
            give_up_rights()
        }
        Confinement::Jail { net, mounts, .. } => {
            enter_namespaces(net)?;
            mounts.iter().try_for_each(|item| bind(&item.from, &item.to, item.access))?;
            Ok(rustix::thread::set_no_new_privs(true)?)
        }
    }
}

/// Why there can be no jail.
pub(crate) fn impediment(program: &Path, firecracker: Release, jailer: Option<Release>) -> Option<String> {
    if let Some(impediment) = flames_vmm::jail::impediment() {
        return Some(impediment);
    }
    match jailer {
        None => Some(format!("`{}` is not the jailer, or not installed", program.display())),
        Some(jailer) if jailer != firecracker => {
            Some(format!("the jailer is {jailer} and Firecracker {firecracker}: install one release"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cage_holds_what_it_is_given_under_its_own_names() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("vmlinux-6.1");
        std::fs::write(&kernel, "ELF").unwrap();
        let item = Item { name: "kernel".into(), file: kernel, access: Access::Read };
        let cage = folder.path().join("cage");
        let mounts = furnish(folder.path(), &cage, &[item], None).unwrap();
        assert!(mounts.is_empty(), "without a user id there is nothing to mount");
        assert_eq!(std::fs::read(cage.join("kernel")).unwrap(), b"ELF");
        assert_eq!(std::fs::read_link(folder.path().join("api.sock")).unwrap(), cage.join("api.sock"));
    }
}
