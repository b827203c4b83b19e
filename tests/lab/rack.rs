//! A rack with its server, with which most flows begin, and an admin's usual commands, each as one call. Owns the
//! server; the network and the files belong to the flow.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::images::{self, Images};
use crate::net::{Net, Segment};
use crate::server::Server;
use crate::vm::Vm;
use crate::wait;

/// The timeout from a machine's power-on to its hardware report, with other machines beside it on two cores.
pub const REPORT_LIMIT: Duration = Duration::from_secs(300);
/// The timeout from an order to the call home of the installed OS.
pub const DEPLOY_LIMIT: Duration = Duration::from_secs(1200);

/// A server with a boot kit and both images.
#[derive(Debug)]
pub struct Rack<'n> {
    /// The server, running.
    pub server: Server<'n>,
}

impl<'n> Rack<'n> {
    /// A rack whose server is also the DHCP server.
    ///
    /// # Errors
    /// When the server does not start, or refuses a kit or image.
    pub fn new(net: &'n Net, segment: Segment, folder: &Path) -> Result<Self> {
        Self::with(Server::start(net, segment, folder)?)
    }

    /// A rack with a server that was just started.
    ///
    /// # Errors
    /// When it refuses a kit or image.
    pub fn with(server: Server<'n>) -> Result<Self> {
        let Images { a, b } = images::debian()?;
        server.run(images::kit_import(&images::kit_packages()?))?;
        for (name, file) in [("debian-a", &a), ("debian-b", &b)] {
            server.run(["image", "add", name, &file.display().to_string()])?;
        }
        Ok(Self { server })
    }

    /// Waits until the machine with this Ethernet address has reported its hardware; the machine's id.
    ///
    /// # Errors
    /// When it has not within [`REPORT_LIMIT`].
    pub fn discovered(&self, mac: &str) -> Result<String> {
        let what = format!("{mac} to report its hardware");
        self.server.wait_json(&what, &["machine", "list"], REPORT_LIMIT, |machines| {
            let machine = with_mac(machines, mac).filter(|machine| !machine["hardware"].is_null())?;
            machine["id"].as_str().map(str::to_owned)
        })
    }

    /// Waits for a machine's report and names it.
    ///
    /// # Errors
    /// When it does not report.
    pub fn name(&self, mac: &str, name: &str) -> Result<()> {
        let id = self.discovered(mac)?;
        self.server.run(["machine", "name", &id, name]).map(drop)
    }

    /// Orders `image` for `machines`, with further flags; the deployment's id.
    ///
    /// # Errors
    /// When the order is refused.
    pub fn order(&self, image: &str, machines: &[&str], flags: &[&str]) -> Result<String> {
        let mut words = vec!["deploy", "start", "--image", image, "--yes"];
        for machine in machines {
            words.extend(["--machines", machine]);
        }
        words.extend(flags);
        let answer = self.server.json(words)?;
        answer["deployment"].as_str().map(str::to_owned).context("the order has no deployment")
    }

    /// Waits until every job of a deployment is deployed; fails at once when one ends in another way.
    ///
    /// # Errors
    /// When a job fails, or at the timeout.
    pub fn deployed(&mut self, deployment: &str) -> Result<Value> {
        let what = format!("{deployment} to be deployed");
        wait::until(&what, DEPLOY_LIMIT, || {
            self.server.check_running()?;
            wait::pause(Duration::from_secs(1))?;
            let shown = self.server.json(["deploy", "status", deployment])?;
            let jobs = shown["jobs"].as_array().context("a deployment without jobs")?;
            for job in jobs {
                if ["failed", "refused", "cancelled"].iter().any(|end| job["state"] == *end) {
                    bail!("the job of {} ended {}: {}", job["name"], job["state"], job["cause"]);
                }
            }
            Ok(jobs.iter().all(|job| job["state"] == "deployed").then_some(shown.clone()))
        })
    }

    /// Waits until the only job of the deployment is at `step`, and has done at least `units` of it.
    ///
    /// # Errors
    /// When it is past that step, or at the timeout.
    pub fn at_step(&self, deployment: &str, step: &str, units: u64) -> Result<()> {
        wait::until(&format!("{deployment} to be at {step}"), DEPLOY_LIMIT, || {
            wait::pause(Duration::from_millis(500))?;
            let job = self.server.json(["deploy", "status", deployment])?["jobs"][0].take();
            let state = job["state"].as_str().unwrap_or_default();
            ensure!(["ordered", "running"].contains(&state), "the job is {state} already: {}", job["cause"]);
            Ok((job["step"] == step && job["done"].as_u64().unwrap_or(0) >= units).then_some(()))
        })
    }

    /// One machine, as the server shows it.
    ///
    /// # Errors
    /// When the server does not know it.
    pub fn machine(&self, mac: &str) -> Result<Value> {
        let machines = self.server.json(["machine", "list"])?;
        with_mac(&machines, mac).cloned().with_context(|| format!("{mac} is not listed"))
    }
}

fn with_mac<'m>(machines: &'m Value, mac: &str) -> Option<&'m Value> {
    let has =
        |machine: &&Value| machine["macs"].as_array().is_some_and(|macs| macs.iter().any(|own| own == mac));
    machines.as_array()?.iter().find(has)
}

/// Waits until the machine's console shows the banner of an image and the login prompt of `host`.
///
/// # Errors
/// When it does not before the timeout.
pub fn at_login(vm: &mut Vm, banner: &str, host: &str) -> Result<()> {
    vm.wait_for(banner, Duration::from_secs(600))?;
    vm.wait_for(&format!("{host} login:"), Duration::from_secs(300)).map(drop)
}

/// How many copies of the image left the server: wire bytes that its jobs took from the server over those of one copy.
///
/// # Errors
/// When the deployment has no jobs or no size.
pub fn copies_sent(deployment: &Value) -> Result<f64> {
    let jobs = deployment["jobs"].as_array().context("a deployment without jobs")?;
    let sent: u64 = jobs.iter().filter_map(|job| job["sources"]["server"].as_u64()).sum();
    let one = deployment["wire_bytes"].as_u64().unwrap_or(0);
    ensure!(one > 0, "an image without bytes");
    #[allow(clippy::cast_precision_loss)] // A ratio for people; images are far below 2^52 bytes.
    let copies = sent as f64 / one as f64;
    Ok(copies)
}
