//! Core, part of the fleet: keeps what DHCP, TFTP and HTTP saw of each machine, and logs what is concluded from it,
//! once, and again when the conclusion changes. Nothing of it is recorded. Touches `api`, `common` and the other cores.

use common::id::MachineId;
use common::step::{Step, What};
use jiff::{SignedDuration, Timestamp};

use super::super::boot_policy::{Answered, ClientKind, Unanswered};
use super::super::silence::{Seen, Trail};
use super::{Fleet, Whose};
use crate::api::shapes::{JobState, MachineState, Silence};

/// How long the DHCP range counts as full after the last machine that got no address.
const FULL: SignedDuration = SignedDuration::from_mins(10);

/// The most machines that `status` lists.
const TOLD_MAX: usize = 8;

impl Fleet {
    /// Records what was seen of a machine.
    pub(in super::super) fn trace(&mut self, machine: MachineId, seen: Seen, now: Timestamp) {
        self.trails.by_machine.entry(machine).or_default().see(seen, now);
    }

    /// Records DHCP's answer to a machine.
    pub(super) fn trace_answer(
        &mut self,
        machine: MachineId,
        firmware: ClientKind,
        answer: &Answered,
        now: Timestamp,
    ) {
        match answer {
            Answered::Not(Unanswered::Exhausted) => self.trails.full = Some(now),
            Answered::Offered { .. } => self.trails.full = None,
            Answered::Proxy { .. } | Answered::Not(_) => {}
        }
        self.trace(machine, if firmware.is_boot_program() { Seen::ProgramRuns } else { Seen::Firmware }, now);
    }

    /// Updates the conclusions about all machines, and logs new ones.
    pub(super) fn notice(&mut self, now: Timestamp) {
        let began = *self.trails.began.get_or_insert(now);
        let machines = &self.state.machines;
        self.trails.by_machine.retain(|id, _| machines.contains_key(id));
        let written =
            self.state.jobs.values().filter(|job| job.state == JobState::Written && job.changed > began);
        let mut looked: std::collections::BTreeSet<MachineId> = written.map(|job| job.machine).collect();
        looked.extend(self.trails.by_machine.keys());
        looked.extend(self.state.notes.keys());
        for id in looked {
            let silence = self.silence_of(id, now);
            if self.state.notes.get(&id) == silence.as_ref() {
                continue;
            }
            if let Some(touched) = &mut self.touched {
                touched.note_machine(id);
            }
            let Some(silence) = silence else {
                self.state.notes.remove(&id);
                continue;
            };
            let text = silence.to_string();
            let known = self.state.notes.insert(id, silence.clone());
            if known.is_none_or(|known| std::mem::discriminant(&known) != std::mem::discriminant(&silence)) {
                self.log(now, Whose::Machine(id), step_of(&silence), What::Note { text });
            }
        }
    }

    fn silence_of(&self, id: MachineId, now: Timestamp) -> Option<Silence> {
        let machine = self.state.machines.get(&id)?;
        if matches!(machine.state, MachineState::Rejected | MachineState::Retired) {
            return None;
        }
        let report = machine.hardware.as_ref().map(|hardware| hardware.report());
        let nothing = Trail::default();
        let trail = self.trails.by_machine.get(&id).unwrap_or(&nothing);
        trail.silence(self.state.newest_job(id), report, now)
    }

    /// Warnings for `status`: a full range, and machines that do not come up.
    #[must_use]
    pub fn notes(&self, now: Timestamp) -> Vec<String> {
        let mut notes = vec![];
        let reach = self.reach();
        if reach.is_everything() && self.trails.full.is_some_and(|at| now.duration_since(at) < FULL) {
            notes.push(
                "no address is left in the range, and machines ask for one: make --dhcp-range larger"
                    .to_owned(),
            );
        }
        let seen = |id: &MachineId| self.state.machines.get(id).filter(|machine| reach.has(machine));
        let told = self.state.notes.iter().filter_map(|(id, note)| Some((seen(id)?, note)));
        let told: Vec<_> = told.map(|(machine, note)| format!("{}: {note}", machine.shown_name())).collect();
        let count = told.len();
        notes.extend(told.into_iter().take(TOLD_MAX));
        if let Some(more) = count.checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            notes.push(format!("{more} more machines do not come up: `swarmboot machine list` shows them"));
        }
        notes
    }
}

/// The step at which the machine stopped, under which the conclusion is logged.
fn step_of(silence: &Silence) -> Step {
    match silence {
        Silence::ProgramNotStarted { .. }
        | Silence::ProgramNotFetched { .. }
        | Silence::LoaderNotFetched { .. }
        | Silence::LoaderSilent { .. } => Step::Loader,
        Silence::OwnDisk => Step::PowerOn,
        Silence::DiskDoesNotBoot { .. } | Silence::NoCall { .. } | Silence::NotSeen => Step::Confirm,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::super::boot_policy::{Asker, ScriptSays, Sighting};
    use super::super::super::job::{Job, tests::job};
    use super::super::super::machine::Machine;
    use super::super::super::marks::Fingerprint;
    use super::super::super::state::Change;
    use super::super::tests::fleet;
    use super::*;
    use common::id::{JobId, Mac};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn asks(firmware: ClientKind, answer: Answered) -> Sighting {
        let asker = Asker { mac: Some(MAC), ..Asker::default() };
        Sighting::PowerOn { asker, firmware, answer, relay: None }
    }

    fn offered() -> Answered {
        Answered::Offered { address: Ipv4Addr::new(10, 0, 0, 7), file: Some("snponly.efi".to_owned()) }
    }

    fn notes_logged(fleet: &mut Fleet) -> Vec<String> {
        let changes = fleet.take_effects().changes;
        changes
            .iter()
            .filter_map(|change| match change {
                Change::Event(event) => match &event.what {
                    What::Note { text } => Some(text.clone()),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_program_that_does_not_start_is_said_once_in_the_log_and_as_long_as_it_lasts_in_status() {
        let mut fleet = fleet();
        let program = Sighting::BootProgram {
            address: Ipv4Addr::new(10, 0, 0, 7).into(),
            file: "snponly.efi".to_owned(),
            over: "tftp",
            bytes: 9,
            whole: true,
        };
        fleet.sighting(asks(ClientKind::tftp("uefi x64"), offered()), at(1));
        fleet.sighting(program.clone(), at(2));
        fleet.notice(at(30));
        assert!(fleet.notes(at(30)).is_empty());
        fleet.take_effects();
        for second in [40, 41, 500] {
            fleet.notice(at(second));
        }
        let said = notes_logged(&mut fleet);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("Secure Boot"), "{said:?}");
        assert!(fleet.notes(at(500))[0].starts_with("m1: it took snponly.efi and did not start it"));
        fleet.sighting(asks(ClientKind::Ipxe, offered()), at(501));
        fleet.notice(at(502));
        assert!(fleet.notes(at(502)).is_empty() && fleet.state.notes.is_empty());
    }

    #[test]
    fn beside_another_server_a_program_that_never_came_back_is_told_of_too() {
        let mut fleet = fleet();
        let address = Ipv4Addr::new(192, 0, 2, 40);
        let asker = Asker { mac: Some(MAC), ..Asker::default() };
        fleet.sighting(asks(ClientKind::tftp("uefi x64"), Answered::Proxy { file: None }), at(1));
        fleet.sighting(Sighting::Address { asker, address }, at(2));
        let nobody = Asker { mac: Some(Mac([2, 0, 0, 0, 0, 9])), ..Asker::default() };
        fleet.sighting(Sighting::Address { asker: nobody, address: Ipv4Addr::new(192, 0, 2, 41) }, at(2));
        assert_eq!(fleet.state.machines.len(), 1, "an address alone makes no machine");
        let (file, over) = ("snponly.efi".to_owned(), "tftp");
        fleet.sighting(
            Sighting::BootProgram { address: address.into(), file, over, bytes: 9, whole: true },
            at(3),
        );
        fleet.notice(at(60));
        assert!(fleet.notes(at(60))[0].starts_with("m1: it took snponly.efi and did not start it"));
    }

    #[test]
    fn a_machine_whose_script_or_program_is_on_its_way_is_not_told_of() {
        let mut fleet = fleet();
        let address = Ipv4Addr::new(10, 0, 0, 7).into();
        let program = |over, file: &str| {
            let (bytes, whole) = (170 << 10, true);
            Sighting::BootProgram { address, file: file.to_owned(), over, bytes, whole }
        };
        let silent = |fleet: &mut Fleet, second| {
            fleet.notice(at(second));
            assert!(fleet.state.notes.is_empty(), "{second}: {:?}", fleet.notes(at(second)));
        };
        let asker = Asker { mac: Some(MAC), ..Asker::default() };
        // The small loader for its NIC is made, for a minute, before its script is answered.
        fleet.sighting(asks(ClientKind::tftp("uefi x64"), offered()), at(1));
        fleet.sighting(program("tftp", "snponly.efi"), at(2));
        fleet.sighting(Sighting::AsksScript { asker: asker.clone(), address }, at(9));
        silent(&mut fleet, 69);
        // UEFI's own HTTP: the server has written all of it, and a thin line carries it for two minutes.
        fleet.sighting(program("http", "snponly.efi"), at(100));
        silent(&mut fleet, 200);
        // The same of kernel and loader, for twenty.
        let says = ScriptSays::Load;
        fleet.sighting(Sighting::Script { asker, address, says }, at(220));
        fleet.sighting(Sighting::LoaderFileBegun { address }, at(221));
        silent(&mut fleet, 1400);
        let file = "vmlinuz".to_owned();
        fleet.sighting(Sighting::LoaderFile { address, file, bytes: 8 << 20 }, at(1401));
        fleet.notice(at(2002));
        assert!(fleet.notes(at(2002))[0].contains("nothing came through after vmlinuz"));
    }

    #[test]
    fn e1_an_ordered_machine_whose_os_asks_for_an_address_is_told_of_after_one_boot() {
        let mut fleet = fleet();
        fleet.sighting(asks(ClientKind::tftp("uefi x64"), offered()), at(-9000));
        let order = Job { changed: at(0), ..job(JobState::Ordered) };
        fleet.put(Change::Job(Box::new(order)));
        let stranger = Mac([2, 0, 0, 0, 0, 9]);
        fleet.sighting(Sighting::System { mac: stranger }, at(10));
        assert_eq!(fleet.state.machines.len(), 1, "an OS that nobody knows is nobody's business");
        fleet.sighting(Sighting::System { mac: MAC }, at(10));
        fleet.notice(at(11));
        assert_eq!(fleet.state.notes.values().next(), Some(&Silence::OwnDisk));
        assert_eq!(fleet.state.machines[&MachineId(1)].last_seen, at(10));
        let job = fleet.state.newest_job(MachineId(1)).unwrap();
        assert_eq!(fleet.state.show_job(job).note, Some(Silence::OwnDisk));
    }

    #[test]
    fn a_range_that_is_full_is_said_until_an_address_is_there_again() {
        let mut fleet = fleet();
        fleet.sighting(asks(ClientKind::tftp("bios"), Answered::Not(Unanswered::Exhausted)), at(1));
        assert!(fleet.notes(at(60))[0].contains("no address is left in the range"));
        assert!(fleet.notes(at(700)).is_empty());
        fleet.sighting(asks(ClientKind::tftp("bios"), Answered::Not(Unanswered::Exhausted)), at(800));
        fleet.sighting(asks(ClientKind::tftp("bios"), offered()), at(801));
        assert!(fleet.notes(at(802)).is_empty());
    }

    #[test]
    fn a_job_that_is_missed_says_what_was_seen_of_its_machine() {
        let mut fleet = fleet();
        fleet.put_machine(Machine::new(MachineId(1), Fingerprint::default(), "lab".to_owned(), at(0)));
        fleet.tick(at(1));
        let written = Job { changed: at(2), deadline: Some(at(900)), ..job(JobState::Written) };
        fleet.put(Change::Job(Box::new(written)));
        for second in [100, 200] {
            fleet.trace(MachineId(1), Seen::ToldOwnDisk, at(second));
        }
        fleet.tick(at(300));
        assert_eq!(fleet.state.notes.len(), 1);
        fleet.tick(at(901));
        let failed = &fleet.state.jobs[&JobId(1)];
        assert_eq!(failed.state, JobState::Failed);
        let cause = failed.cause.as_deref().unwrap();
        assert!(
            cause.contains("not heard of in time") && cause.contains("the disk does not boot"),
            "{cause}"
        );
        fleet.tick(at(902));
        assert!(fleet.state.notes.is_empty());
    }
}
