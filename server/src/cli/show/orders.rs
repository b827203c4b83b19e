//! Prints what orders do, or would do. Touches standard output and standard error.

use common::text::bytes;

use super::words::when;
use super::{Screen, print_line};
use crate::api::shapes::{DeployAnswer, DeployLine, ImageShown, RetryLine, Warning};
use crate::fault::Fault;

impl Screen {
    /// Prints what an order does, or would do, with each machine.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn answer(&self, answer: &DeployAnswer) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(answer);
        }
        let verb = |deployment: Option<common::id::DeploymentId>| match deployment {
            Some(id) => format!("{id}: writes"),
            None if answer.deployment.is_some() => "nothing is left to write of".to_owned(),
            None => "would write".to_owned(),
        };
        if answer.profiles.is_empty() {
            print_line(&format!("{} {}", verb(answer.deployment), image_words(&answer.image)))?;
        }
        for part in &answer.profiles {
            let (verb, image, profile) = (verb(part.deployment), image_words(&part.image), &part.profile);
            print_line(&format!(
                "{verb} {image}, by the profile {} of {}",
                profile.name,
                when(profile.added)
            ))?;
            print_line(&format!("{:<23} {}", "", part.wish))?;
            let of = answer.machines.iter().filter(|line| line.profile.as_ref() == Some(&profile.name));
            of.clone().try_for_each(machine_of_order)?;
            if of.count() == 0 {
                print_line(&format!("{:<23} no machine yet", ""))?;
            }
        }
        // Those that fit no profile, and of a profile by which nothing was ordered.
        let is_of_a_part = |line: &&DeployLine| {
            answer.profiles.iter().any(|part| line.profile.as_ref() == Some(&part.profile.name))
        };
        answer.machines.iter().filter(|line| !is_of_a_part(line)).try_for_each(machine_of_order)
    }

    /// Prints the jobs that are ordered again, or would be.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn retried(&self, lines: &[RetryLine], would: bool) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&lines);
        }
        for RetryLine { job, deployment, image, line } in lines {
            let verb = if would { "would order" } else { "ordered" };
            let by =
                line.profile.as_ref().map_or_else(String::new, |name| format!(", by the profile {name}"));
            print_line(&format!("{job} of {deployment}: {verb} {image} again{by}"))?;
            machine_of_order(line)?;
        }
        Ok(())
    }
}

fn image_words(image: &ImageShown) -> String {
    let (short, size, wire) = (image.id.0.short(), bytes(image.bytes), bytes(image.wire_bytes));
    format!("{} ({short}, {size}, {wire} on the wire)", image.name)
}

fn machine_of_order(line: &DeployLine) -> Result<(), Fault> {
    let fate = match (&line.refused, &line.target) {
        (Some(why), _) => format!("refused: {why}"),
        (None, Some(target)) => format!("target:  {target}"),
        (None, None) => "target:  chosen when the machine reports; one that is not blank is written only with --accept data".to_owned(),
    };
    print_line(&format!("{:<6} {:<16} {fate}", line.machine.to_string(), line.name))?;
    let hostname = line.hostname.iter().filter(|name| **name != line.name);
    // The line above says already that the hardware is not known.
    let shown = line.warnings.iter().filter(|warning| **warning != Warning::HardwareUnknown);
    let below = hostname
        .map(|name| format!("hostname {name}"))
        .chain(shown.map(|warning| format!("warning: {warning}")));
    below.filter(|_| line.refused.is_none()).try_for_each(|text| print_line(&format!("{:<23} {text}", "")))
}
