//! Owns dnsmasq, with nothing but DHCP: another DHCP server that gives out addresses and says nothing about booting,
//! beside which swarmboot runs as a proxyDHCP server. Touches one segment.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::net::{Net, Segment};
use crate::process::Beside;
use crate::wait;

/// The timeout of its start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A dnsmasq that runs until it is dropped.
#[derive(Debug)]
pub struct Dnsmasq {
    running: Beside,
}

impl Dnsmasq {
    /// Gives out the addresses `.100` to `.199` of `segment`. Its files go to `folder`.
    ///
    /// # Errors
    /// When dnsmasq is not installed, or the port is in use.
    pub fn start(net: &Net, segment: Segment, folder: &Path) -> Result<Self> {
        let interface = segment.interface();
        let name = format!("dnsmasq-{interface}");
        let words = [
            format!("--interface={interface}"),
            format!("--dhcp-range={},{},1h", segment.address(100), segment.address(199)),
            format!("--dhcp-leasefile={}", folder.join(format!("{name}.leases")).display()),
        ];
        Self::run(net, &name, &words, folder)
    }

    /// Runs it with these words besides; its log goes to the file `name` in `folder`.
    pub(crate) fn run(net: &Net, name: &str, words: &[String], folder: &Path) -> Result<Self> {
        let mut command = net.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]);
        command.args(["--user=root", "--bind-dynamic", "--log-facility=-", "--log-dhcp", "--pid-file="]);
        command.args(words);
        let mut running = Beside::start(name, &mut command, &folder.join(format!("{name}.log")))?;
        wait::until(&format!("{name} to start"), START_LIMIT, || {
            running.check_running()?;
            Ok(running.said().contains("started").then_some(()))
        })?;
        Ok(Self { running })
    }

    /// Its whole log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.said()
    }
}
