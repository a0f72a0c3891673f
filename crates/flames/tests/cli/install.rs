//! `flames install firecracker`, from a server and from files: only a release that is what it should be is kept.

use crate::home::{Ended, Home};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// None that exists, so that Flames knows no checksum of it.
const RELEASE: &str = "1.99.0";

/// A server of files; it ends with the test's process. A length that is not that of the bytes makes it break off.
fn serve(files: HashMap<String, (Vec<u8>, usize)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/releases", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let path = first.split(' ').nth(1).unwrap();
            let (status, bytes, length) = match files.get(path) {
                Some((bytes, length)) => ("200 OK", bytes.as_slice(), *length),
                None => ("404 Not Found", &[][..], 0),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let _ = stream.write_all(bytes);
        }
    });
    url
}

/// An archive as releases are, of programs that only know their version.
fn archive(home: &Home, firecracker: &str, jailer: &str) -> PathBuf {
    let folder = home.file("release-v1.16.1-x86_64");
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in [("firecracker", firecracker), ("jailer", jailer)] {
        let path = folder.join(format!("{name}-v1.16.1-{}", std::env::consts::ARCH));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join(format!("{name}-v1.16.1-{}.debug", std::env::consts::ARCH)), "symbols")
            .unwrap();
    }
    let archive = home.file("release.tgz");
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(home.file("")).arg("release-v1.16.1-x86_64");
    assert!(tar.status().unwrap().success());
    archive
}

fn says(name: &str, release: &str) -> String {
    format!("#!/bin/sh\necho '{name} v{release}'\n")
}

fn good(home: &Home) -> PathBuf {
    archive(home, &says("Firecracker", RELEASE), &says("Jailer", RELEASE))
}

fn sum(file: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(file).unwrap()))
}

/// A server with one release and its checksum; of the archive so many bytes less than it says.
fn mirror(archive: &Path, checksum: &str, missing: usize) -> String {
    mirror_of(RELEASE, archive, checksum, missing)
}

fn mirror_of(release: &str, archive: &Path, checksum: &str, missing: usize) -> String {
    let bytes = fs::read(archive).unwrap();
    let name = format!("/releases/v{release}/firecracker-v{release}-{}.tgz", std::env::consts::ARCH);
    let told = format!("{checksum}  firecracker.tgz\n").into_bytes();
    let sent = bytes[..bytes.len() - missing].to_vec();
    let beside = (told.clone(), told.len());
    serve([(format!("{name}.sha256.txt"), beside), (name, (sent, bytes.len()))].into())
}

fn in_use(home: &Home) -> PathBuf {
    home.data().join("firecracker/current/firecracker")
}

fn assert_refused(home: &Home, ended: &Ended, why: &str) {
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    assert!(!in_use(home).exists());
    let kept = fs::read_dir(home.data().join("firecracker")).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "something is kept");
}

#[test]
fn a_release_is_fetched_compared_installed_and_found_and_the_second_time_it_is_there() {
    let home = Home::bare();
    let archive = good(&home);
    let mirror = mirror(&archive, &sum(&archive), 0);
    let install = ["install", "firecracker", "--release", RELEASE, "--mirror", &mirror];
    let told = home.ok(&install);
    assert!(told.contains("Firecracker 1.99.0 is installed in"), "{told}");
    let version = Command::new(in_use(&home)).arg("--version").output().unwrap();
    assert_eq!(version.stdout, b"Firecracker v1.99.0\n");
    let again = home.ok(&["install", "firecracker", "--release", RELEASE, "--mirror", "http://127.0.0.1:1"]);
    assert!(again.contains("is installed already"), "{again}");
    // What is broken is installed anew.
    fs::write(in_use(&home), "").unwrap();
    assert!(home.ok(&install).contains("is installed in"));
    let doctor = home.flames(&["doctor"]).text();
    assert!(!doctor.contains("`firecracker` is not installed"), "{doctor}");
}

#[test]
fn an_archive_that_is_not_the_released_one_is_not_even_unpacked() {
    let home = Home::bare();
    let archive = good(&home);
    let other = "0".repeat(64);
    let install = |mirror: String, words: &[&str]| {
        let all = ["install", "firecracker", "--release", RELEASE, "--mirror", &mirror];
        home.flames(&[&all[..], words].concat())
    };
    assert_refused(&home, &install(mirror(&archive, &other, 0), &[]), "not the released one");
    let refused = install(mirror(&archive, &sum(&archive), 0), &["--sha256", &other]);
    assert_refused(&home, &refused, "not the released one");
    assert_refused(&home, &install(mirror(&archive, "<html>", 0), &[]), "64 hexadecimal digits");
}

#[test]
fn of_the_default_release_the_checksum_is_known_and_a_mirrors_own_counts_for_nothing() {
    let home = Home::bare();
    let forged = archive(&home, &says("Firecracker", "1.16.1"), &says("Jailer", "1.16.1"));
    let mirror = mirror_of("1.16.1", &forged, &sum(&forged), 0);
    let refused = home.flames(&["install", "firecracker", "--mirror", &mirror]);
    assert_refused(&home, &refused, "not the released one");
    assert!(refused.stderr.contains("and should be"), "{refused:?}");
    // Who types another knows why.
    home.ok(&["install", "firecracker", "--mirror", &mirror, "--sha256", &sum(&forged)]);
}

#[test]
fn a_transfer_that_breaks_off_and_a_release_that_is_not_there_leave_nothing() {
    let home = Home::bare();
    let archive = good(&home);
    let mirror = mirror(&archive, &sum(&archive), 10);
    let of = |release| home.flames(&["install", "firecracker", "--mirror", &mirror, "--release", release]);
    assert_refused(&home, &of(RELEASE), "broke off");
    assert_refused(&home, &of("v1.98.0"), "404");
    let refused = home.flames(&["install", "firecracker", "--mirror", "http://127.0.0.1:1"]);
    assert_refused(&home, &refused, "cannot be fetched");
}

#[test]
fn an_archive_or_folder_of_ones_own_is_installed_and_compared_where_a_checksum_is_known() {
    let home = Home::bare();
    let archive = good(&home);
    let from = ["install", "firecracker", "--from", archive.to_str().unwrap()];
    fs::write(home.file("release.tgz.sha256.txt"), "1".repeat(64)).unwrap();
    assert_refused(&home, &home.flames(&from), "not the released one");
    fs::remove_file(home.file("release.tgz.sha256.txt")).unwrap();
    let sum = sum(&archive).to_uppercase();
    let typed = [&from[..], &["--sha256", &sum]].concat();
    assert!(home.ok(&typed).contains("is installed in"));
    let folder = home.file("release-v1.16.1-x86_64");
    home.ok(&["install", "firecracker", "--from", folder.to_str().unwrap()]);
    assert!(in_use(&home).exists());
}

#[test]
fn what_is_no_release_of_firecracker_is_refused_by_what_is_wrong_with_it() {
    let home = Home::bare();
    let install =
        |archive: PathBuf| home.flames(&["install", "firecracker", "--from", archive.to_str().unwrap()]);
    let jailer = says("Jailer", "1.16.1");
    let no_binary = install(archive(&home, "\u{1}no binary", &jailer));
    assert_refused(&home, &no_binary, "firecracker");
    let other = install(archive(&home, "#!/bin/sh\necho QEMU\n", &jailer));
    assert_refused(&home, &other, "not what its name says");
    let mixed = install(archive(&home, &says("Firecracker", "1.16.0"), &jailer));
    assert_refused(&home, &mixed, "two releases, 1.16.0 and 1.16.1");
    let whole = good(&home);
    let cut = home.file("cut.tgz");
    let bytes = fs::read(&whole).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert_refused(&home, &install(cut), "no whole archive");
    let empty = home.file("empty");
    fs::create_dir_all(&empty).unwrap();
    assert_refused(&home, &install(empty), "there is no `firecracker` in it");
    assert_refused(&home, &install(home.file("nowhere.tgz")), "nowhere.tgz");
    for words in
        [["--release", "latest"], ["--release", "../../x"], ["--sha256", "abc"], ["--mirror", "nowhere"]]
    {
        let ended = home.flames(&[&["install", "firecracker"][..], &words].concat());
        assert_eq!(ended.code, 2, "{words:?}: {ended:?}");
    }
}
