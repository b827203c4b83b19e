//! Core: parses the loader's parameters out of the kernel command line. Touches `trust`, `wire::http`.

use common::id::{BadId, Mac};
use common::limits::cut;
use common::trust::{PublicKey, Untrusted};
use common::wire::http::{CMDLINE_KEY, CMDLINE_MAC, CMDLINE_SERVER};

/// The loader's parameters, which the boot script puts on the kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The server's URL, as written, cut to 255 characters.
    pub server: String,
    /// The server's public key: the root of all trust on this machine.
    pub key: PublicKey,
    /// The Ethernet address of the interface that the machine booted from; none if the boot program did not say.
    pub mac: Option<Mac>,
}

/// Why the kernel command line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCmdline {
    /// A required parameter is missing or empty.
    #[error("the kernel command line has no `{0}=`")]
    Missing(&'static str),
    /// The value of the server's key is not 64 hexadecimal digits.
    #[error("the kernel command line's `{CMDLINE_KEY}=` is no key")]
    Key(#[source] Untrusted),
    /// The value of the Ethernet address is malformed.
    #[error("the kernel command line's `{CMDLINE_MAC}=` is no Ethernet address")]
    Mac(#[source] BadId),
}

impl Invocation {
    /// Parses the parameters in `line`. Of several of one name the last counts, as with the kernel's own; an empty
    /// Ethernet address (iPXE's `${net0/mac}` without a `net0`) counts as absent.
    ///
    /// # Errors
    /// When the server or its key is missing, or a value is malformed.
    pub fn parse(line: &str) -> Result<Self, BadCmdline> {
        let word = |name: &'static str| {
            line.split_ascii_whitespace()
                .rev()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"'))
                .filter(|value| !value.is_empty())
        };
        let server = word(CMDLINE_SERVER).ok_or(BadCmdline::Missing(CMDLINE_SERVER))?;
        let key = word(CMDLINE_KEY).ok_or(BadCmdline::Missing(CMDLINE_KEY))?;
        Ok(Self {
            server: cut(server, 255).to_owned(),
            key: key.parse().map_err(BadCmdline::Key)?,
            mac: word(CMDLINE_MAC).map(str::parse).transpose().map_err(BadCmdline::Mac)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::trust::KeyPair;

    #[test]
    fn the_words_of_ours_are_found_among_the_kernels() {
        let key = KeyPair::from_secret([3; 32]).public();
        let line = format!(
            "initrd=loader quiet swarmboot.server=http://10.9.9.9:1 console=tty0 console=ttyS0,115200 \
             swarmboot.server=http://10.0.0.1:8069 swarmboot.key={key} swarmboot.mac=52-54-00-12-34-56\n"
        );
        let read = Invocation::parse(&line).unwrap();
        assert_eq!(read.server, "http://10.0.0.1:8069");
        assert_eq!(read.key, key);
        assert_eq!(read.mac, Some(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])));

        let without = Invocation::parse(&line.replace("52-54-00-12-34-56", "")).unwrap();
        assert_eq!(without.mac, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let key = KeyPair::from_secret([3; 32]).public();
        assert_eq!(Invocation::parse("quiet"), Err(BadCmdline::Missing(CMDLINE_SERVER)));
        assert_eq!(
            Invocation::parse("swarmboot.server=http://10.0.0.1 swarmboot.serverkey=1"),
            Err(BadCmdline::Missing(CMDLINE_KEY))
        );
        let short = Invocation::parse("swarmboot.server=http://10.0.0.1 swarmboot.key=ed25519:12");
        assert!(matches!(short, Err(BadCmdline::Key(_))));
        let mac = format!("swarmboot.server=http://10.0.0.1 swarmboot.key={key} swarmboot.mac=eth0");
        assert!(matches!(Invocation::parse(&mac), Err(BadCmdline::Mac(_))));
    }
}
