//! `flames install firecracker`: a release of Firecracker into Flames' own data directory, where `vmm.driver = "auto"`
//! finds it. The one command that fetches programs from elsewhere, and only when it is typed.
//!
//! | step | when it fails |
//! |---|---|
//! | fetch the archive, and of a release that is not known the checksum that was released with it | nothing is kept |
//! | compare | nothing is kept |
//! | unpack, find `firecracker` and `jailer`, ask both for their release | nothing is kept |
//! | move them to their place in one step, then make them the ones in use | what was in use stays |

mod fetch;

use super::Context as Command;
use crate::cli::{Install, InstallFirecracker};
use crate::output;
use crate::places::{Installed, make_private_dir};
use anyhow::{Context, bail};
use flames_vmm::VmmDriver;
use flames_vmm_firecracker::{FirecrackerConfig, FirecrackerDriver};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

/// Both are needed: one runs guests, the other confines it.
const PROGRAMS: [(&str, &str); 2] = [("firecracker", "Firecracker v"), ("jailer", "Jailer v")];

pub(crate) async fn run(context: &Command, command: &Install) -> anyhow::Result<ExitCode> {
    let Install::Firecracker(wanted) = command;
    let installed = Installed::below(&context.places.data);
    let said = match present(&installed, wanted).await {
        Some(release) => {
            installed.use_release(&release)?;
            format!("Firecracker {release} is installed already in {}", installed.folder(&release).display())
        }
        None => {
            let release = install(&installed, wanted).await?;
            format!("Firecracker {release} is installed in {}", installed.folder(&release).display())
        }
    };
    output::line(said)?;
    if let Some(why) = impediment(&installed).await {
        output::line(format!("This machine does not run it yet: {why}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The release that is asked for, if it is there and works.
async fn present(installed: &Installed, wanted: &InstallFirecracker) -> Option<String> {
    let release = wanted.from.is_none().then_some(&wanted.release)?;
    let found = release_in(&installed.folder(release)).await.ok()?;
    (found == *release).then_some(found)
}

async fn install(installed: &Installed, wanted: &InstallFirecracker) -> anyhow::Result<String> {
    make_private_dir(installed.root())
        .with_context(|| format!("{} cannot be made", installed.root().display()))?;
    let work = tempfile::tempdir_in(installed.root())?;
    let unpacked = match &wanted.from {
        Some(folder) if folder.is_dir() => folder.clone(),
        Some(archive) => unpack(archive, &checksum_of(archive, wanted)?, work.path()).await?,
        None => {
            let archive = work.path().join("release.tgz");
            let checksum = fetch::release(wanted, &archive).await?;
            unpack(&archive, &Some(checksum), work.path()).await?
        }
    };
    let staged = work.path().join("programs");
    std::fs::create_dir(&staged)?;
    for (program, _) in PROGRAMS {
        let found = find(&unpacked, program).with_context(|| format!("there is no `{program}` in it"))?;
        std::fs::copy(&found, staged.join(program))?;
        std::fs::set_permissions(staged.join(program), PermissionsExt::from_mode(0o755))?;
    }
    let release = release_in(&staged).await?;
    if wanted.from.is_none() && release != wanted.release {
        bail!("it is release {release}, and {} was asked for", wanted.release);
    }
    installed.keep(&staged, &release)?;
    Ok(release)
}

/// What an archive on this machine must have as its checksum; `None` when nobody says.
fn checksum_of(archive: &Path, wanted: &InstallFirecracker) -> anyhow::Result<Option<String>> {
    if let Some(checksum) = &wanted.sha256 {
        return Ok(Some(checksum.clone()));
    }
    let mut beside = archive.as_os_str().to_owned();
    beside.push(".sha256.txt");
    match std::fs::read_to_string(&beside) {
        Ok(text) => fetch::first_checksum(&text).map(Some),
        Err(_) => Ok(None),
    }
}

async fn unpack(archive: &Path, checksum: &Option<String>, work: &Path) -> anyhow::Result<PathBuf> {
    let told = || format!("{} cannot be read", archive.display());
    if let Some(expected) = checksum {
        let found = hash(archive).with_context(told)?;
        if !found.eq_ignore_ascii_case(expected) {
            bail!("the archive is not the released one: its SHA-256 is {found}, and should be {expected}");
        }
    }
    let folder = work.join("unpacked");
    std::fs::create_dir(&folder)?;
    let mut tar = tokio::process::Command::new("tar");
    tar.args(["-xzf"]).arg(archive).args(["--no-same-owner", "-C"]).arg(&folder).stdin(Stdio::null());
    let ended = tar.output().await.context("`tar` does not run")?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        bail!(
            "{} is no whole archive: {}",
            archive.display(),
            said.lines().next().unwrap_or("tar does not say why")
        );
    }
    Ok(folder)
}

fn hash(file: &Path) -> std::io::Result<String> {
    let (mut file, mut hash) = (std::fs::File::open(file)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// `firecracker` as such or as `firecracker-v1.16.1-x86_64`, in a folder or those in it; never its debug symbols.
fn find(folder: &Path, program: &str) -> Option<PathBuf> {
    let is_it = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let released = name.starts_with(&format!("{program}-v")) && name.ends_with(std::env::consts::ARCH);
        path.is_file() && (name == program || released)
    };
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let top = list(folder);
    let below = top.iter().filter(|path| path.is_dir()).flat_map(|folder| list(folder));
    top.iter().cloned().chain(below.collect::<Vec<_>>()).find(|path| is_it(path))
}

/// The release that both programs of a folder say they are.
async fn release_in(folder: &Path) -> anyhow::Result<String> {
    let mut releases = Vec::new();
    for (program, begins) in PROGRAMS {
        let path = folder.join(program);
        let output = tokio::process::Command::new(&path)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("`{program}` does not run here"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let first = said.lines().next().unwrap_or_default();
        match first.strip_prefix(begins) {
            Some(release) => releases.push(release.trim().to_owned()),
            None => bail!("`{program}` is not what its name says: asked for its version it says {first:?}"),
        }
    }
    match &releases[..] {
        [firecracker, jailer] if firecracker == jailer => {
            crate::cli::release(firecracker).map_err(anyhow::Error::msg)
        }
        _ => bail!("the programs are of two releases, {}", releases.join(" and ")),
    }
}

/// Why this machine does not run what is installed.
async fn impediment(installed: &Installed) -> Option<String> {
    let [binary, jailer] = installed.programs()?;
    let driver = FirecrackerDriver::new(FirecrackerConfig { binary, jailer, ..FirecrackerConfig::default() });
    driver.version().await.err().map(|error| error.to_string())
}
