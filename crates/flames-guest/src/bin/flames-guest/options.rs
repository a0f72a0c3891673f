//! Arguments of the plain mode.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How to serve on a host.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where to listen.
    pub(crate) address: SocketAddr,
    /// A file whose first line is the control token.
    pub(crate) control_token_file: PathBuf,
    /// Below it are `etc/passwd` and the like.
    pub(crate) root: PathBuf,
}

const USAGE: &str = "usage: flames-guest serve --port N --control-token-file F [--root DIR] [--bind ADDRESS]";

impl Options {
    /// # Errors
    /// Says which argument is wrong, and the usage.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, format!("{what}\n{USAGE}"));
        if words.next().as_deref() != Some("serve") {
            return Err(wrong("expected `serve`".into()));
        }
        let (mut port, mut bind, mut token, mut root) = (None, None, None, None);
        while let Some(option) = words.next() {
            let slot = match option.as_str() {
                "--port" => &mut port,
                "--bind" => &mut bind,
                "--control-token-file" => &mut token,
                "--root" => &mut root,
                _ => return Err(wrong(format!("unknown option `{option}`"))),
            };
            *slot = Some(words.next().ok_or_else(|| wrong(format!("`{option}` needs a value")))?);
        }
        let address = format!("{}:{}", bind.as_deref().unwrap_or("127.0.0.1"), port.unwrap_or_default());
        Ok(Self {
            address: address.parse().map_err(|_| wrong(format!("`{address}` is no address and port")))?,
            control_token_file: token.ok_or_else(|| wrong("--control-token-file is missing".into()))?.into(),
            root: root.unwrap_or_else(|| "/".into()).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> io::Result<Options> {
        Options::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn plain_mode_listens_on_loopback_unless_told_otherwise() {
        let options = parse("serve --port 7 --control-token-file /t").unwrap();
        assert_eq!(options.address.to_string(), "127.0.0.1:7");
        assert_eq!(options.root, PathBuf::from("/"));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, named) in [
            ("run", "serve"),
            ("serve --port x --control-token-file /t", "127.0.0.1:x"),
            ("serve --port", "--port"),
            ("serve --colour red", "--colour"),
            ("serve --port 1", "--control-token-file"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(named), "{line}");
        }
    }
}
