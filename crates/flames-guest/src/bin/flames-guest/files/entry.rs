//! What a path is, in the words of the wire.

use super::metadata;
use crate::users::Names;
use flames_guest::filesystem::{EntryInfo, FileType};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 0o170_000;

/// Describes a path; of a symbolic link, what it leads to.
pub(crate) fn entry(path: &Path, names: &Names) -> io::Result<EntryInfo> {
    let own = fs::symlink_metadata(path)?;
    if !own.is_symlink() {
        return Ok(describe(path, &own, None, names));
    }
    let target = resolved(path)?;
    // A link that leads nowhere is described as itself.
    let found = fs::metadata(path).unwrap_or(own);
    Ok(describe(path, &found, Some(target), names))
}

/// Whether a path is a symbolic link without a target.
pub(crate) fn is_link_to_nowhere(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

/// Where a link ends, or as far as it says.
fn resolved(link: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(link).or_else(|_| fs::read_link(link))
}

fn describe(path: &Path, found: &Metadata, target: Option<PathBuf>, names: &Names) -> EntryInfo {
    EntryInfo {
        name: path.file_name().map_or("/".into(), |name| name.to_string_lossy()).into_owned(),
        file_type: file_type(found),
        path: path.to_string_lossy().into_owned(),
        size: i64::try_from(found.len()).unwrap_or(i64::MAX),
        mode: found.mode() & 0o777,
        permissions: permissions(found.mode()),
        owner: names.user(found.uid()),
        group: names.group(found.gid()),
        modified_time: Some(rfc3339(found.mtime(), found.mtime_nsec())),
        symlink_target: target.map(|target| target.to_string_lossy().into_owned()),
        metadata: if found.is_file() { metadata::of(path) } else { Default::default() },
    }
}

fn file_type(found: &Metadata) -> FileType {
    match found.file_type() {
        kind if kind.is_file() => FileType::File,
        kind if kind.is_dir() => FileType::Directory,
        kind if kind.is_symlink() => FileType::Symlink,
        _ => FileType::Unspecified,
    }
}

/// `-rw-r--r--`, with the letters in front that the reference uses.
fn permissions(mode: u32) -> String {
    let kind = match mode & FORMAT {
        0o040_000 => "d",
        0o120_000 => "L",
        0o060_000 => "D",
        0o020_000 => "Dc",
        0o010_000 => "p",
        0o140_000 => "S",
        _ => "",
    };
    let special = [(0o4000, "u"), (0o2000, "g"), (0o1000, "t")];
    let special = special.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, letter)| letter);
    let mut text: String = std::iter::once(kind).chain(special).collect();
    if text.is_empty() {
        text.push('-');
    }
    text.extend(
        (0..9).map(|place| if mode & (0o400 >> place) == 0 { '-' } else { ['r', 'w', 'x'][place % 3] }),
    );
    text
}

/// Seconds and nanoseconds since 1970 as RFC 3339 in UTC.
fn rfc3339(seconds: i64, nanos: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The date of a number of days since 1970, with years that begin in March so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn permissions_read_like_those_of_ls() {
        for (mode, want) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
        ] {
            assert_eq!(permissions(mode), want);
        }
    }

    proptest! {
        #[test]
        fn times_are_those_of_a_calendar(seconds in -62_000_000_000i64..250_000_000_000, nanos in 0i64..1_000_000_000) {
            let theirs: jiff::Timestamp = rfc3339(seconds, nanos).parse().unwrap();
            prop_assert_eq!(theirs.as_nanosecond(), i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
        }
    }
}
