//! Prints answers: tables and log lines for people, JSON for programs. Touches standard output and standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

// Core: the text of cells and lines.
pub(super) mod words;

// Tokens, and who somebody is.
mod access;

// Orders, and what they would do.
mod orders;

// Profiles.
mod profile;

use std::io::Write as _;
use std::path::Path;

use comfy_table::{Table, presets};
use common::text::{bytes, percent};
use serde::Serialize;

use self::words::{
    disks, event_line, hardware, job_line, or_dash, sent_copies, staged_lines, state_words, step_words, when,
};
use super::args::Output;
use crate::api::shapes::{
    DeploymentShown, Frozen, ImageShown, ImageTraits, ImageUpdate, JobShown, KitShown, LogEvent,
    MachineChanged, MachineShown, ServerStatus,
};
use crate::backup::Restored;
use crate::fault::Fault;

/// Prints answers in the format that the admin chose.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// The format: tables and lines, or JSON.
    pub output: Output,
}

/// Prints a message that is not data, to standard error.
pub fn talk(text: &str) {
    eprintln!("{text}");
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn print_table(table: &Table) -> Result<(), Fault> {
    for line in table.lines() {
        print_line(line.trim_end())?;
    }
    Ok(())
}

/// Prints a line of data. If the reader has closed the pipe (`| head`), that is no failure: the program ends quietly.
fn print_line(line: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            #[allow(clippy::exit)] // Nobody reads what is left; there is nothing to clean up in a client.
            std::process::exit(0)
        }
        Err(error) => Err(Fault::failed("cannot write to standard output").because(&error)),
    }
}

impl Screen {
    /// Prints `value` as JSON on one line.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value)
            .map_err(|error| Fault::failed("the answer cannot be written as JSON").because(&error))?;
        print_line(&text)
    }

    /// Whether the format is JSON.
    #[must_use]
    pub fn wants_json(self) -> bool {
        self.output == Output::Json
    }

    /// Prints the server's status and its warnings.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn status(&self, status: &ServerStatus) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(status);
        }
        print_line(&format!("version  {}", status.version))?;
        print_line(&format!("key      {}", status.key))?;
        print_line(&format!("url      {}", status.url))?;
        print_line(&format!("mode     {}", status.mode))?;
        if let Some(api) = &status.api {
            print_line(&format!("api      {}, SHA-256 {}", api.url, api.fingerprint))?;
        }
        print_line(&format!("started  {}", when(status.started)))?;
        if let Some(frozen) = &status.frozen {
            print_line(&format!("frozen   {frozen}; nothing new begins until `deploy unfreeze`"))?;
        }
        let told =
            status.subscribers.iter().map(|told| format!("events   {} ({}): {told}", told.name, told.target));
        let mut lines = told.chain(status.warnings.iter().map(|warning| format!("warning  {warning}")));
        lines.try_for_each(|line| print_line(&line))
    }

    /// Prints what was restored into the state folder at `state`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn restored(&self, restored: &Restored, state: &Path) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(restored);
        }
        let (files, size, made) = (restored.files, bytes(restored.bytes), when(restored.head.made));
        print_line(&format!("{}: {files} files, {size}, as of {made}", state.display()))
    }

    /// Prints boot kits as a table, and what each lacks as notes on standard error.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn kits(&self, kits: &[KitShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&kits);
        }
        let mut rows = table(&["NAME", "KERNEL", "LOADER", "MODULES", "BOOT PROGRAMS", "USED"]);
        for kit in kits {
            rows.add_row([
                kit.name.clone(),
                kit.kernel.clone(),
                bytes(kit.loader_bytes),
                kit.modules.to_string(),
                kit.boot_programs.join(" "),
                if kit.in_use { "yes" } else { "no" }.to_owned(),
            ]);
        }
        print_table(&rows)?;
        for kit in kits {
            if let Some(version) = &kit.ipxe {
                let can = if kit.verifies { "can" } else { "cannot" };
                talk(&format!("note: {}: iPXE {version}, which {can} check what peers send", kit.name));
            }
            for missing in &kit.missing {
                talk(&format!("note: {}: {missing}", kit.name));
            }
        }
        Ok(())
    }

    /// Prints images as a table.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn images(&self, images: &[ImageShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&images);
        }
        let mut rows = table(&["NAME", "ID", "SIZE", "ON THE WIRE", "CHUNKS", "ZERO", "TABLE", "ADDED"]);
        for image in images {
            rows.add_row([
                image.name.clone(),
                image.id.0.short(),
                bytes(image.bytes),
                bytes(image.wire_bytes),
                image.chunks.to_string(),
                image.zero_chunks.to_string(),
                image.partition_table.clone(),
                when(image.added),
            ]);
        }
        print_table(&rows)?;
        images.iter().flat_map(staged_lines).try_for_each(|line| print_line(&line))
    }

    /// Prints one image, with its traits.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn image(&self, image: &ImageShown) -> Result<(), Fault> {
        self.images(std::slice::from_ref(image))?;
        let lines = image.traits.as_ref().filter(|_| !self.wants_json()).map(ImageTraits::lines);
        lines.into_iter().flatten().try_for_each(|(what, said)| print_line(&format!("{what:<20} {said}")))?;
        if self.wants_json() {
            return Ok(());
        }
        image.updates.iter().try_for_each(|ImageUpdate { from, wire_bytes }| {
            let share = percent(*wire_bytes, image.wire_bytes);
            let what = format!("over {from}");
            print_line(&format!("{what:<20} {} on the wire, {share} % of it", bytes(*wire_bytes)))
        })
    }

    /// Prints machines as a table, and below it what is concluded about silent ones.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn machines(&self, machines: &[MachineShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&machines);
        }
        let mut rows = table(&["ID", "NAME", "STATE", "SITE", "HARDWARE", "DISKS", "MAC", "OS", "LAST SEEN"]);
        for machine in machines {
            rows.add_row([
                machine.id.to_string(),
                machine.name.clone(),
                format!(
                    "{}{}{}{}",
                    machine.state.name(),
                    if machine.held { " (held)" } else { "" },
                    if machine.stays { " (stays)" } else { "" },
                    if machine.doubts.is_empty() { "" } else { " (in doubt)" }
                ),
                machine.site.clone(),
                hardware(machine),
                disks(machine),
                machine.macs.first().map_or_else(|| "-".to_owned(), ToString::to_string),
                or_dash(machine.deployed_image.as_deref().unwrap_or("")).to_owned(),
                when(machine.last_seen),
            ]);
        }
        print_table(&rows)?;
        let noted = machines.iter().filter_map(|machine| Some((machine, machine.note.as_ref()?)));
        noted.into_iter().try_for_each(|(machine, note)| print_line(&format!("{}: {note}", machine.name)))
    }

    /// Prints one machine with its doubts, its job and its hardware.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn machine(&self, machine: &MachineShown) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(machine);
        }
        let pair = |(key, value)| format!("{key}={value}");
        let by_rule = machine.rule_labels.iter().map(pair).map(|label| format!("{label} (by rule)"));
        let labels: Vec<String> = machine.labels.iter().map(pair).chain(by_rule).collect();
        let rows = [
            ("machine", format!("{} ({})", machine.id, machine.name)),
            ("state", state_words(machine)),
            ("site", machine.site.clone()),
            ("labels", or_dash(&labels.join(" ")).to_owned()),
            ("hardware", hardware(machine)),
            ("first seen", when(machine.first_seen)),
            ("last seen", when(machine.last_seen)),
            ("os", or_dash(machine.deployed_image.as_deref().unwrap_or("")).to_owned()),
        ];
        for (what, value) in rows {
            print_line(&format!("{what:<11} {value}"))?;
        }
        for doubt in &machine.doubts {
            print_line(&format!("{:<11} {doubt}", "in doubt"))?;
            print_line(&format!(
                "{:<11} `swarmboot machine merge {} --into {}` if it is that machine, `machine release {}` if not",
                "", machine.id, doubt.other, machine.id
            ))?;
        }
        if let Some(job) = &machine.job {
            print_line(&format!("{:<11} {} of {}: {}", "job", job.id, job.deployment, job_line(job)))?;
        }
        if let Some(note) = &machine.note {
            print_line(&format!("{:<11} {note}", "note"))?;
        }
        let Some(hardware) = &machine.hardware else { return Ok(()) };
        for disk in &hardware.disks {
            let contents = serde_json::to_value(disk.contents).unwrap_or_default();
            let marks = [disk.model.as_str(), disk.serial.as_str(), disk.wwn.as_str()].join(" ");
            print_line(&format!(
                "disk        {} {} {} [{}] {}",
                disk.name,
                bytes(disk.size),
                marks.trim(),
                contents.as_str().unwrap_or("?"),
                disk.found.join(", ")
            ))?;
            if let Some(reason) = disk.unusable() {
                print_line(&format!("{:<11} {}: no image can be written to it: {reason}", "", disk.name))?;
            }
        }
        for nic in &hardware.nics {
            let link = if nic.link { "up" } else { "down" };
            let address = nic.address.as_deref().unwrap_or("-");
            print_line(&format!(
                "nic         {} {} {} link {link} {address}",
                nic.name, nic.mac, nic.driver
            ))?;
        }
        for device in hardware.devices.iter().filter(|device| device.driver.is_empty() && device.class != 0) {
            print_line(&format!(
                "no driver   {} class {:06x} {}",
                device.address, device.class, device.modalias
            ))?;
        }
        for cut in &hardware.truncated {
            print_line(&format!("cut         {cut}"))?;
        }
        Ok(())
    }

    /// Prints what a command did with each machine.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn changed(&self, changed: &[MachineChanged]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&changed);
        }
        changed.iter().try_for_each(|change| {
            print_line(&format!("{:<6} {:<16} {}", change.machine.to_string(), change.name, change.text))
        })
    }

    /// Prints whether the server is frozen.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn frozen(&self, frozen: Option<&Frozen>) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&frozen);
        }
        match frozen {
            Some(frozen) => print_line(&format!("{frozen}; nothing new begins, what runs goes on")),
            None => print_line("not frozen"),
        }
    }

    /// Prints deployments as a table, one line each.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn deployments(&self, deployments: &[DeploymentShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&deployments);
        }
        let has_profiles = deployments.iter().any(|deployment| deployment.profile.is_some());
        let mut head = vec!["ID", "IMAGE", "MACHINES", "DEPLOYED", "FAILED", "OPEN", "ORDERED"];
        head.extend(has_profiles.then_some("PROFILE"));
        let mut rows = table(&head);
        for deployment in deployments {
            let count = |over: &[crate::api::shapes::JobState]| {
                deployment.jobs.iter().filter(|job| over.contains(&job.state)).count().to_string()
            };
            use crate::api::shapes::JobState::{Cancelled, Deployed, Failed, Refused};
            let profile = deployment.profile.as_ref().map_or("-", |profile| &profile.name);
            let mut row = vec![
                deployment.id.to_string(),
                deployment.image.clone(),
                deployment.jobs.len().to_string(),
                count(&[Deployed]),
                count(&[Failed, Refused, Cancelled]),
                if deployment.open { "yes" } else { "no" }.to_owned(),
                when(deployment.ordered),
            ];
            row.extend(has_profiles.then(|| profile.to_owned()));
            rows.add_row(row);
        }
        print_table(&rows)
    }

    /// Prints several deployments, each as [`Self::deployment`] does; as JSON one list.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn deployments_whole(&self, deployments: &[DeploymentShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&deployments);
        }
        deployments.iter().try_for_each(|deployment| self.deployment(deployment))
    }

    /// Prints a deployment and its jobs, with where the image's bytes came from.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn deployment(&self, deployment: &DeploymentShown) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(deployment);
        }
        print_line(&format!(
            "{} {} ({}), ordered {}",
            deployment.id,
            deployment.image,
            deployment.image_id.0.short(),
            when(deployment.ordered)
        ))?;
        if let Some(profile) = &deployment.profile {
            print_line(&format!("by the profile {}, as it was added {}", profile.name, when(profile.added)))?;
        }
        if !deployment.with.is_empty() {
            let others: Vec<String> = deployment.with.iter().map(ToString::to_string).collect();
            print_line(&format!("ordered together with {}", others.join(", ")))?;
        }
        if let Some(since) = deployment.paused {
            print_line(&format!(
                "paused since {}: nothing more of it begins until `deploy resume {}`",
                when(since),
                deployment.id
            ))?;
        }
        if deployment.is_full {
            print_line("it has taken as many machines as one order may write, and takes no more")?;
        }
        let mut rows = table(&[
            "MACHINE",
            "STATE",
            "STEP",
            "TRY",
            "FROM SERVER",
            "FROM PEERS",
            "ON DISK",
            "NOT SENT",
            "TO PEERS",
        ]);
        for job in &deployment.jobs {
            rows.add_row([
                job.name.clone(),
                job.state.name().to_owned(),
                step_words(job),
                job.attempt.to_string(),
                bytes(job.sources.server),
                bytes(job.sources.peers),
                bytes(job.sources.disk),
                bytes(job.sources.unsent),
                bytes(job.sources.uploaded),
            ]);
        }
        print_table(&rows)?;
        let sent: u64 = deployment.jobs.iter().map(|job| job.sources.server).sum();
        if deployment.wire_bytes > 0 {
            print_line(&format!("{} of the image", sent_copies(sent, deployment.wire_bytes)))?;
        }
        let words =
            |job: &JobShown| job.cause.clone().into_iter().chain(job.note.as_ref().map(ToString::to_string));
        deployment
            .jobs
            .iter()
            .flat_map(|job| words(job).map(move |text| (job, text)))
            .try_for_each(|(job, text)| print_line(&format!("{}: {text}", job.name)))
    }

    /// Prints rows under a head, as a table.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn rows<const N: usize>(
        &self,
        head: &[&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Result<(), Fault> {
        let mut shown = table(head);
        rows.for_each(|row| {
            shown.add_row(row);
        });
        print_table(&shown)
    }

    /// Prints one line of data.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn line(&self, line: &str) -> Result<(), Fault> {
        print_line(line)
    }

    /// Prints one event of the log, as a line.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn event(&self, event: &LogEvent) -> Result<(), Fault> {
        if self.wants_json() { self.json(event) } else { print_line(&event_line(event)) }
    }
}
