//! Owns another DHCP server: plain dnsmasq that gives out addresses and says nothing about booting, beside which
//! swarmboot runs as a proxyDHCP server. Touches one segment.

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
        let mut command = net.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-ping",
            "--log-dhcp",
        ]);
        command.args(["--user=root", "--bind-dynamic", "--log-facility=-", "--pid-file="]);
        command.arg(format!("--interface={interface}"));
        command.arg(format!("--dhcp-range={},{},1h", segment.address(100), segment.address(199)));
        command.arg(format!(
            "--dhcp-leasefile={}",
            folder.join(format!("dnsmasq-{interface}.leases")).display()
        ));
        let log = folder.join(format!("dnsmasq-{interface}.log"));
        let mut running = Beside::start("dnsmasq", &mut command, &log)?;
        wait::until("dnsmasq to start", START_LIMIT, || {
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
