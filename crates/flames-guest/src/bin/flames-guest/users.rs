//! Users and groups, read from `etc/passwd` and `etc/group` themselves: a static program must not let libc
//! load the image's name service modules.

use nix::unistd::{Gid, Uid};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Somebody who can own files and run processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, the first one included.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: PathBuf,
}

/// A table that is larger than this was not made for people.
const MAX_TABLE: u64 = 4 << 20;

/// Looks a user up by name.
///
/// # Errors
/// When a table exists and cannot be read. Without `etc/passwd` there is only `root`.
pub(crate) fn find(root: &Path, name: &str) -> io::Result<Option<User>> {
    let passwd = read_table(root, "etc/passwd")?;
    let Some(mut user) = passwd.lines().find_map(|line| parse_user(line).filter(|user| user.name == name))
    else {
        return Ok((passwd.is_empty() && name == "root").then(superuser));
    };
    user.groups = groups_of(&read_table(root, "etc/group")?, &user);
    Ok(Some(user))
}

/// Names of owners, for showing files.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// What can be read of the tables: a file is shown with its owner's number otherwise.
    pub(crate) fn read(root: &Path) -> Self {
        let ids = |table: &str| {
            let mut names = HashMap::new();
            for (id, name) in read_table(root, table).unwrap_or_default().lines().filter_map(parse_id) {
                names.entry(id).or_insert(name);
            }
            names
        };
        Self { users: ids("etc/passwd"), groups: ids("etc/group") }
    }

    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub(crate) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

fn superuser() -> User {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    User { name: "root".into(), uid, gid, groups: vec![gid], home: "/root".into() }
}

fn read_table(root: &Path, name: &str) -> io::Result<String> {
    let file = match File::open(root.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_TABLE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `name:password:uid:gid:comment:home:shell`
fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    let gid = Gid::from_raw(gid.parse().ok()?);
    let home = if home.is_empty() { "/" } else { home };
    Some(User {
        name: name.into(),
        uid: Uid::from_raw(uid.parse().ok()?),
        gid,
        groups: vec![gid],
        home: home.into(),
    })
}

/// `name:password:id:...`, which both tables share.
fn parse_id(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
}

/// `name:password:gid:member,member`
fn groups_of(table: &str, user: &User) -> Vec<Gid> {
    let member_of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { return None };
        members
            .split(',')
            .any(|member| member.trim() == user.name)
            .then(|| gid.parse().ok().map(Gid::from_raw))?
    };
    let mut groups = vec![user.gid];
    groups.extend(table.lines().filter_map(member_of).filter(|gid| *gid != user.gid));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root_with(passwd: &str, group: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    #[test]
    fn a_user_has_the_groups_that_list_it_after_its_own() {
        let root = root_with(
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001:,,,:/home/user:/bin/bash\n",
            "sudo:x:27:other,user\nuser:x:1001:\nnone:x:5:other\n",
        );
        let user = find(root.path(), "user").unwrap().unwrap();
        assert_eq!(user.uid.as_raw(), 1000);
        assert_eq!(user.groups, [Gid::from_raw(1001), Gid::from_raw(27)]);
        assert_eq!(user.home, PathBuf::from("/home/user"));
        assert_eq!(find(root.path(), "nobody").unwrap(), None);
    }

    #[test]
    fn malformed_lines_are_nobody() {
        let root = root_with("user\nuser:x:minus:1::/:\n\n:::\n", "");
        assert_eq!(find(root.path(), "user").unwrap(), None);
    }

    #[test]
    fn an_image_without_a_table_has_root_alone() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path(), "root").unwrap().unwrap().home, PathBuf::from("/root"));
        assert_eq!(find(root.path(), "user").unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_the_parser_panic(passwd in ".{0,200}", group in ".{0,200}") {
            let user = passwd.lines().find_map(parse_user).unwrap_or_else(superuser);
            prop_assert_eq!(groups_of(&group, &user)[0], user.gid);
        }
    }
}
