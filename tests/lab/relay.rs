//! Owns a relay of a branch: `swarmboot relay run` in a namespace there, let in by an invitation of the server. Asks the
//! server only what an admin could ask.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::net::Net;
use crate::process::{self, Beside};
use crate::server::Server;
use crate::wait;

/// The timeout until the server lists it.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The timeout of staging an image over a thin line.
const STAGE_LIMIT: Duration = Duration::from_secs(600);

/// A relay, which runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    running: Beside,
}

impl Relay {
    /// Invites a relay to `site` and starts it on `eth0` of `net`, beside the DHCP server that is there, for the server
    /// at `url`. Its files go to `folder`.
    ///
    /// # Errors
    /// When the server refuses, or has not heard of it at the timeout.
    pub fn start(net: &Net, server: &Server<'_>, url: &str, site: &str, folder: &Path) -> Result<Self> {
        let invited = server.json(["relay", "invite", "--site", site])?;
        let word = invited["word"].as_str().context("the invitation has no word")?;
        let mut command = net.command(process::program("swarmboot")?);
        command.args(["relay", "run", "--server", url, "--interface", "eth0", "--invite", word, "--state"]);
        command.arg(folder.join("relay")).env("NO_COLOR", "1").env_remove("SWARMBOOT_RELAY_CONFIG");
        let mut running = Beside::start("the relay", &mut command, &folder.join("relay.log"))?;
        wait::until("the server to hear of the relay", START_LIMIT, || {
            running.check_running()?;
            let relays = server.json(["relay", "list"])?;
            let here =
                relays.as_array().is_some_and(|relays| relays.iter().any(|one| one["state"] == "here"));
            Ok(here.then_some(()))
        })?;
        Ok(Self { running })
    }

    /// Stages `image` at `site` and waits until the site's relay has all of it.
    ///
    /// # Errors
    /// When the server refuses, or at the timeout.
    pub fn stage(&mut self, server: &Server<'_>, image: &str, site: &str) -> Result<()> {
        server.run(["image", "stage", image, "--site", site])?;
        wait::until("the relay to have the image", STAGE_LIMIT, || {
            self.running.check_running()?;
            wait::pause(Duration::from_secs(1))?;
            let relays = server.json(["relay", "list"])?;
            let whole =
                |held: &serde_json::Value| held["total"].as_u64() > Some(0) && held["held"] == held["total"];
            let images = relays[0]["images"].as_array().cloned().unwrap_or_default();
            Ok(images.iter().any(whole).then_some(()))
        })
    }

    /// Its whole log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.said()
    }

    /// Sends it a signal, such as SIGKILL for a power loss.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }
}
