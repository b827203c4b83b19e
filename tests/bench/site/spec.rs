//! Owns what a machine of the site benchmark is told on its command line, and the marks that it prints. Touches nothing.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The first word of a line of a machine's output that is a mark.
const MARK: &str = "#mark";

/// A machine: what its firmware, its loader and its disk are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Its number, from 0, of which its Ethernet address, UUID and serial number are made.
    pub(crate) number: u8,
    /// The IPv4 address that DHCP gives it.
    pub(crate) address: String,
    /// `efi` or `pcbios`, as iPXE says.
    pub(crate) platform: String,
    /// The version of its iPXE, as `${version}` says.
    pub(crate) version: String,
    /// Its disk, a file.
    pub(crate) target: PathBuf,
    /// Size of the image that it gets, in bytes: what is behind it on the disk is for cloud-init.
    pub(crate) image_bytes: u64,
    /// The server's URL for a machine that only reports and ends: it was seen at the site some days ago.
    pub(crate) only_reports_to: Option<String>,
    /// How long it pauses before its agent begins, so that the line's counter can be read, in ms.
    pub(crate) pause_ms: u64,
}

impl Spec {
    /// Its Ethernet address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        [0x52, 0x54, 0, 0x5c, 0, self.number]
    }

    /// The same as text.
    pub(crate) fn mac_text(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Its SMBIOS UUID.
    pub(crate) fn uuid(&self) -> String {
        format!("5c000000-0000-4000-8000-0000000000{:02x}", self.number)
    }

    /// Its SMBIOS serial number.
    pub(crate) fn serial(&self) -> String {
        format!("SITE-{:04}", self.number)
    }
}

/// What a machine has come to, with the time and a number whose meaning is the mark's own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// Milliseconds of the computer's clock, which all machines of a run share.
    pub(crate) at_ms: u64,
    /// Its name: `power-on`, `got` (a file, with its bytes), `waiting`, `agent`, `sealed`, `home`, or `spoiled`.
    pub(crate) what: String,
    /// For `got`: bytes.
    pub(crate) bytes: u64,
    /// For `got`: the URL; else a text for people.
    pub(crate) text: String,
}

impl Mark {
    /// The line of it in a machine's output.
    pub(crate) fn line(&self) -> String {
        format!("{MARK} {} {} {} {}", self.at_ms, self.what, self.bytes, self.text)
    }

    /// The marks in a machine's whole output.
    ///
    /// # Errors
    /// When a line that begins as a mark is none.
    pub(crate) fn all(said: &str) -> Result<Vec<Self>> {
        said.lines().filter(|line| line.starts_with(MARK)).map(Self::parse).collect()
    }

    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(5, ' ').skip(1);
        let mut next = || words.next().with_context(|| format!("not a mark: {line}"));
        let (at, what, bytes) = (next()?, next()?, next()?);
        Ok(Self {
            at_ms: at.parse().context("a mark's time")?,
            what: what.to_owned(),
            bytes: bytes.parse().context("a mark's bytes")?,
            text: words.next().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark { at_ms: 7, what: "got".to_owned(), bytes: 9, text: "http://a/b c".to_owned() };
        let said = format!("noise\n{}\nmore\n", mark.line());
        assert_eq!(Mark::all(&said).unwrap(), [mark]);
        assert!(Mark::all("#mark x y z").is_err());
    }
}
