//! What the node says on the kernel command line.

use super::BootError;
use super::network::Address;

/// The words after `--`-less kernel arguments: `flames.net=172.16.0.2/24,172.16.0.1`.
pub(super) struct CommandLine {
    network: Option<Address>,
}

impl CommandLine {
    pub(super) fn read() -> Result<Self, BootError> {
        let text = std::fs::read_to_string("/proc/cmdline")
            .map_err(|error| BootError::new("read /proc/cmdline", error))?;
        Self::parse(&text)
            .map_err(|error| BootError::new("read the kernel command line", std::io::Error::other(error)))
    }

    /// Address of eth0; without one there is only loopback.
    pub(super) fn network(&self) -> Option<Address> {
        self.network
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("flames.net="));
        Ok(Self { network: value.map(Address::parse).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_network_is_found_among_other_words() {
        let line = CommandLine::parse("quiet flames.net=172.16.0.2/24,172.16.0.1 root=/dev/vda\n").unwrap();
        let address = line.network().unwrap();
        assert_eq!(address.guest, Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(address.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(address.gateway, Ipv4Addr::new(172, 16, 0, 1));
    }

    #[test]
    fn no_network_means_loopback_only() {
        assert!(CommandLine::parse("quiet").unwrap().network().is_none());
    }

    #[test]
    fn a_malformed_network_is_refused_with_what_was_written() {
        for bad in ["", "172.16.0.2", "172.16.0.2/33,172.16.0.1", "172.16.0.2/24", "x/24,172.16.0.1"] {
            let error = CommandLine::parse(&format!("flames.net={bad}")).err().unwrap();
            assert!(error.contains(bad), "{error}");
        }
    }
}
