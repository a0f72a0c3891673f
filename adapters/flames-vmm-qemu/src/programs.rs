//! The files that QEMU itself consists of: in a jail there are no others.

use flames_vmm::jail::{Access, Mount};
use flames_vmm::process::find_program;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// QEMU on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The program.
    pub(crate) qemu: PathBuf,
    /// Where it has its firmware.
    pub(crate) data: Vec<PathBuf>,
    /// All it consists of, where it expects it: the program, its libraries, its accelerator, its firmware.
    pub(crate) files: Vec<Mount>,
}

/// Lists what the dynamic linker would load, instead of running the program.
const TRACE: &str = "LD_TRACE_LOADED_OBJECTS";
/// How the linker finds libraries quickly, and at all where they are in unusual folders.
const LINKER_CACHE: &str = "/etc/ld.so.cache";
/// Software emulation, where a distribution keeps it out of the program.
const ACCELERATOR: &str = "accel-tcg-x86_64.so";
/// Starts an uncompressed kernel.
const KERNEL_LOADER: &str = "pvh.bin";

impl Programs {
    /// Asks QEMU and the dynamic linker.
    pub(crate) async fn find(name: &Path, firmware: &Path) -> io::Result<Self> {
        let qemu = find_program(name)?;
        let (listed, data) =
            tokio::join!(output(&qemu, &["--version"], Some(TRACE)), output(&qemu, &["-L", "help"], None));
        let libraries = libraries(&listed?);
        let data: Vec<PathBuf> = data?.lines().map(PathBuf::from).filter(|folder| folder.is_dir()).collect();
        let data: Vec<PathBuf> = data.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        let mut files = vec![Mount { from: qemu.clone(), to: qemu.clone(), access: Access::Execute }];
        files.extend(libraries.iter().filter_map(|library| place(library, Access::Execute)));
        files.extend(accelerator(&qemu, &libraries).and_then(|module| place(&module, Access::Execute)));
        files.extend(place(Path::new(LINKER_CACHE), Access::Read));
        let roms = [firmware, Path::new(KERNEL_LOADER)].map(|rom| in_data(rom, &data));
        files.extend(roms.iter().flatten().filter_map(|rom| place(rom, Access::Read)));
        Ok(Self { qemu, data, files })
    }
}

/// A file with a slash is that file; another is looked for in QEMU's data directories.
pub(crate) fn in_data(file: &Path, data: &[PathBuf]) -> Option<PathBuf> {
    if file.components().count() > 1 {
        return Some(file.to_owned());
    }
    data.iter().map(|folder| folder.join(file)).find(|candidate| candidate.is_file())
}

async fn output(program: &Path, arguments: &[&str], variable: Option<&str>) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.envs(variable.map(|name| (name, "1")));
    Ok(String::from_utf8_lossy(&command.output().await?.stdout).into_owned())
}

/// The absolute paths in the linker's list: `libz.so.1 => /lib/libz.so.1 (0x…)`, `/lib64/ld-linux.so.2 (0x…)`.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in listed
        .lines()
        .filter(|line| line.contains(" (0x"))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from))
    {
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

fn accelerator(qemu: &Path, libraries: &[PathBuf]) -> Option<PathBuf> {
    let beside = qemu.parent().and_then(Path::parent).map(|prefix| prefix.join("lib"));
    let folders = libraries.iter().filter_map(|library| library.parent().map(Path::to_owned)).chain(beside);
    folders.map(|folder| folder.join("qemu").join(ACCELERATOR)).find_map(|module| module.canonicalize().ok())
}

/// A file at its own path; what is a link there is the file itself in the jail.
fn place(file: &Path, access: Access) -> Option<Mount> {
    Some(Mount { from: file.canonicalize().ok()?, to: file.to_owned(), access })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_the_linker_lists() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                      \tlibgone.so.2 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
                      \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(listed), expected);
        // A static program ignores the variable and prints what it was asked for.
        assert!(libraries("QEMU emulator version 10.0.2 (/usr)\n").is_empty());
    }
}
