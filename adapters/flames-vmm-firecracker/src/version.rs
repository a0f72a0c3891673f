//! Which releases of Firecracker are driven, and which are refused and why.

use std::fmt;

/// A release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

/// What is to be said of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Supported,
    /// Newer than what this was tested with; minor releases keep their API.
    Untested,
    Refused(String),
}

const fn release(major: u32, minor: u32, patch: u32) -> Release {
    Release { major, minor, patch }
}

/// The serial console's rate limiter, the interface's MTU and `clock_realtime` are all there from here on.
const OLDEST: Release = release(1, 16, 0);
/// The minor release whose API description the types are held against.
const TESTED: (u32, u32) = (1, 16);

/// What is wrong with a release that would otherwise do. Faults of devices that Flames gives to no guest are
/// not among them: 1.16.0 and 1.16.1 lose vsock connections after a pause or a restore, and there is no vsock.
const KNOWN_BAD: [(Release, &str); 1] = [(
    release(1, 16, 0),
    "its jailer follows no symbolic link to a control group or a network namespace, and fails on hosts \
     that have such; 1.16.1 mends it",
)];

impl Release {
    /// Finds `1.16.1` in `Firecracker v1.16.1`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        let number = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
        let number = number.split(['-', '+']).next()?;
        let mut parts = number.split('.').map(|part| part.parse().ok());
        let mut part = || parts.next().flatten();
        Some(release(part()?, part()?, part()?))
    }

    pub(crate) fn judge(self) -> Verdict {
        if let Some((_, reason)) = KNOWN_BAD.iter().find(|(bad, _)| *bad == self) {
            return Verdict::Refused(format!("{self} is known to be bad: {reason}"));
        }
        if self < OLDEST {
            return Verdict::Refused(format!("{self} is too old: install 1.16.1 or later"));
        }
        match (self.major, self.minor) {
            of if of == TESTED => Verdict::Supported,
            (1, _) => Verdict::Untested,
            _ => Verdict::Refused(format!("{self} is of another major release than 1")),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_found_in_what_the_program_prints() {
        assert_eq!(Release::find("Firecracker v1.16.1\n\n"), Some(release(1, 16, 1)));
        assert_eq!(Release::find("Jailer v1.17.0-dev"), Some(release(1, 17, 0)));
        for other in ["QEMU emulator version 7.2.22", "", "v1.2", "vx.y.z"] {
            assert_eq!(Release::find(other), None, "{other}");
        }
    }

    #[test]
    fn a_bad_release_is_refused_by_name_with_the_reason() {
        let Verdict::Refused(reason) = release(1, 16, 0).judge() else { panic!("it is known to be bad") };
        assert!(reason.contains("1.16.0") && reason.contains("jailer"), "{reason}");
        assert!(matches!(release(1, 15, 9).judge(), Verdict::Refused(_)));
        assert!(matches!(release(2, 0, 0).judge(), Verdict::Refused(_)));
        assert_eq!(release(1, 16, 1).judge(), Verdict::Supported);
        assert_eq!(release(1, 17, 0).judge(), Verdict::Untested);
    }
}
