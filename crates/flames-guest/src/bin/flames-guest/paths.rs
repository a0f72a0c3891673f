//! How a caller's path becomes an absolute one.

use std::path::{Component, Path, PathBuf};

/// Longest path the kernel takes.
const MAX_PATH: usize = 4096;

/// Why a path is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    #[error("path is longer than {MAX_PATH} bytes")]
    TooLong,
    #[error("path contains a zero byte")]
    ZeroByte,
}

/// Empty means `workdir` (or home without one); `~` and relative paths start at home. `.` and `..` are
/// resolved by name, and the result never leaves `/`.
pub(crate) fn resolve(path: &str, home: &Path, workdir: Option<&Path>) -> Result<PathBuf, BadPath> {
    if path.len() >= MAX_PATH {
        return Err(BadPath::TooLong);
    }
    if path.contains('\0') {
        return Err(BadPath::ZeroByte);
    }
    let whole = match path {
        "" => home.join(workdir.unwrap_or(home)),
        "~" => home.to_owned(),
        // Joining an absolute path replaces what was there before.
        _ => home.join(path.strip_prefix("~/").map_or(path, |rest| rest.trim_start_matches('/'))),
    };
    Ok(clean(&Path::new("/").join(whole)))
}

fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at_home(path: &str) -> String {
        resolve(path, Path::new("/home/user"), Some(Path::new("/work")))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    #[test]
    fn each_kind_of_path_starts_where_clients_expect_it() {
        for (path, want) in [
            ("", "/work"),
            ("~", "/home/user"),
            ("~/a", "/home/user/a"),
            ("~//etc/passwd", "/home/user/etc/passwd"),
            ("a/b", "/home/user/a/b"),
            ("/etc//hosts", "/etc/hosts"),
            ("../x/./y", "/home/x/y"),
            ("/../../etc", "/etc"),
        ] {
            assert_eq!(at_home(path), want, "{path:?}");
        }
        assert_eq!(resolve("", Path::new("/home/user"), None).unwrap(), Path::new("/home/user"));
    }

    #[test]
    fn what_no_kernel_would_take_is_refused() {
        assert_eq!(resolve("a\0b", Path::new("/"), None), Err(BadPath::ZeroByte));
        assert_eq!(resolve(&"a/".repeat(2048), Path::new("/"), None), Err(BadPath::TooLong));
    }

    proptest! {
        #[test]
        fn every_path_becomes_absolute_and_clean(path in ".{0,60}|[./~a]{0,30}") {
            if let Ok(clean) = resolve(&path, Path::new("/home/user"), None) {
                prop_assert!(clean.is_absolute());
                let all_plain = clean.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
                prop_assert!(all_plain);
            }
        }
    }
}
