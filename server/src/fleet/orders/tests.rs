//! Orders at the fleet, with a tailor that takes the only disk: what was shown is what is written, an admin's word
//! counts at every instant, and nothing becomes approved by accident.

use std::sync::Arc;

use common::hardware::{
    Bus, CheckedHardware, Contents, Cpu, Device, Disk, Firmware, HardwareReport, Nic, REPORT_VERSION, System,
};
use common::id::{Hash, ImageId, Mac};
use common::plan::{Instruction, Plan};
use common::step::{EventBatch, StepEvent};
use common::trust::{KeyPair, PublicKey};
use jiff::SignedDuration;

use super::super::decide::Settings;
use super::super::own::{Own, OwnDisk};
use super::super::provisioner::{NoPlan, Provision};
use super::super::reports::Next;
use super::super::state::State;
use super::*;
use crate::api::shapes::{Retry, RetryLine, RetryShown, Shown, ShownLine};

const WEEK: i64 = 7 * 24 * 3600;

fn key(machine: u8, boot: u8) -> PublicKey {
    KeyPair::from_secret([machine.wrapping_mul(16).wrapping_add(boot); 32]).public()
}

fn disk(serial: &str, contents: Contents) -> Disk {
    Disk {
        name: "sda".to_owned(),
        bus: Bus::Ata,
        size: 1 << 30,
        sector_bytes: 512,
        model: String::new(),
        serial: serial.to_owned(),
        wwn: String::new(),
        path: String::new(),
        rotational: false,
        removable: false,
        read_only: false,
        contents,
        found: vec![],
        volumes: vec![],
    }
}

fn blank(serial: &str) -> Vec<Disk> {
    vec![disk(serial, Contents::Blank)]
}

fn report(machine: u8, boot: u8, disks: Vec<Disk>) -> HardwareReport {
    HardwareReport {
        version: REPORT_VERSION,
        reporter: "test".to_owned(),
        key: key(machine, boot),
        firmware: Firmware::Uefi,
        system: System { serial: format!("SN{machine}"), ..System::default() },
        cpu: Cpu::default(),
        memory_bytes: 1 << 30,
        disks,
        nics: vec![Nic {
            name: "eth0".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, machine]),
            driver: String::new(),
            speed_mbit: None,
            link: true,
            address: None,
            boot: true,
            usb: false,
        }],
        devices: vec![],
        name: None,
        site: None,
        truncated: vec![],
    }
}

fn image(name: &str) -> ImageShown {
    ImageShown {
        name: name.to_owned(),
        id: ImageId(Hash::of(name.as_bytes())),
        added: Timestamp::UNIX_EPOCH,
        bytes: 1 << 30,
        wire_bytes: 1 << 28,
        chunks: 1024,
        zero_chunks: 0,
        sector_bytes: 512,
        partition_table: "gpt".to_owned(),
        source: "test".to_owned(),
        traits: None,
    }
}

/// The disk that was shown, or the only one there is; a serial number FIRST stands for what only `--accept other-disk`
/// orders.
fn choose(request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan> {
    let target = |disk: &Disk| Target {
        disk: DiskIdentity::of(disk),
        words: disk.serial.clone(),
        warnings: if disk.serial == "FIRST" {
            vec![Warning::OtherDiskBoots { disk: "sdb".to_owned() }]
        } else {
            vec![]
        },
    };
    match hardware.report().disks.as_slice() {
        [disk] => Ok(target(disk)),
        disks => {
            let bound = disks.iter().find(|disk| request.bound == Some(DiskIdentity::of(disk)));
            bound.map(target).ok_or_else(|| NoPlan::Failed(format!("{} disks", disks.len()).into()))
        }
    }
}

/// A fleet, and what comes to it.
struct Trial {
    fleet: Fleet,
    now: Timestamp,
    request: Option<PlanRequest>,
    hardware: Option<Arc<CheckedHardware>>,
}

impl Trial {
    fn new() -> Self {
        Self::with(Own::default())
    }

    fn with(own: Own) -> Self {
        let settings = Settings {
            discover: true,
            poll_seconds: 5,
            confirm_within: SignedDuration::from_mins(15),
            order_expires: Some(SignedDuration::from_secs(WEEK)),
            keep_events: None,
            keep_bytes: None,
            reserve_bytes: 0,
            sites: vec![],
            token_key: [3; 32],
            own: Arc::new(own),
            url: String::new(),
        };
        let fleet = Fleet::new(State::default(), settings);
        Self { fleet, now: Timestamp::from_second(1_000_000).unwrap(), request: None, hardware: None }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self.fleet.tick(self.now);
    }

    /// A machine reports, whose agent of before has been silent for long, and what the tailor was asked waits.
    fn comes(&mut self, report: HardwareReport) -> Option<Instruction> {
        self.now = self.now.checked_add(SignedDuration::from_secs(1)).unwrap();
        let hardware = Arc::new(CheckedHardware::check(report).unwrap());
        self.fleet.boots.age();
        (self.request, self.hardware) = (None, None);
        match self.fleet.report(&hardware, None, self.now).next {
            Next::Tell(order) => Some(order),
            Next::AtWork(agent) => Some(agent.order()),
            Next::Tailor(request, hardware) => {
                (self.request, self.hardware) = (Some(*request), Some(hardware));
                None
            }
        }
    }

    /// The tailor is done with what waits.
    fn tailored(&mut self) -> Instruction {
        let (request, hardware) = (self.request.take().unwrap(), self.hardware.take().unwrap());
        let made = choose(&request, &hardware).map(|target| Provision {
            plan: plan(&request, target.disk),
            target: target.words,
            warnings: target.warnings,
        });
        let key = hardware.report().key;
        self.fleet.tailored(request.job, key, made, self.now).0
    }

    fn reports(&mut self, report: HardwareReport) -> Instruction {
        match self.comes(report) {
            Some(order) => order,
            None => self.tailored(),
        }
    }

    /// The serial number of the disk that a machine is told to write.
    fn written(&mut self, report: HardwareReport) -> Option<String> {
        match self.reports(report) {
            Instruction::Deploy(plan) => Some(plan.target.serial),
            _ => None,
        }
    }

    fn lines(&self, order: &DeployOrder, name: &str) -> Result<Vec<DeployLine>, Refused> {
        let line = |candidate: Candidate| {
            let target = candidate.request.as_ref().map(|(asked, hardware)| choose(asked, hardware));
            candidate.line(target, &[])
        };
        let mut lines: Vec<_> = self.fleet.candidates(order, &image(name))?.into_iter().map(line).collect();
        let shown = order.shown.iter().flat_map(|shown| &shown.machines);
        lines.iter_mut().zip(shown).for_each(|(line, shown)| hold_to(line, shown.disk.as_ref()));
        Ok(lines)
    }

    fn order_lines(&mut self, text: serde_json::Value) -> Result<(DeploymentId, Vec<DeployLine>), Refused> {
        let order: DeployOrder = serde_json::from_value(text).unwrap();
        let name = order.image.clone();
        let mut lines = self.lines(&order, &name)?;
        let id = self.fleet.place(order, &image(&name), &mut lines, self.now)?;
        Ok((id, lines))
    }

    fn order(&mut self, machines: &[&str]) -> Result<DeploymentId, Refused> {
        self.order_lines(serde_json::json!({"image": "debian", "selection": {"machines": machines}}))
            .map(|(id, _)| id)
    }

    fn open(&mut self) -> DeploymentId {
        self.order_lines(serde_json::json!({"image": "open", "selection": {}, "open": true})).unwrap().0
    }

    fn act(&mut self, machine: &str, action: MachineAction) -> Result<Vec<MachineChanged>, Refused> {
        let selection = Selection { machines: vec![machine.to_owned()], labels: vec![] };
        self.fleet.command(&MachineCommand { selection, action, dry_run: false }, self.now)
    }

    fn cancel(&mut self, id: DeploymentId) {
        self.fleet.cancel(id, &Cancel::default(), self.now).unwrap();
    }

    fn retry(&mut self, retry: Retry) -> Result<Vec<RetryLine>, Refused> {
        let mut lines: Vec<RetryLine> = self
            .fleet
            .retryable(&retry)?
            .into_iter()
            .map(|again| {
                let target = again.candidate.request.as_ref().map(|(asked, seen)| choose(asked, seen));
                let line = again.candidate.line(target, &[]);
                RetryLine { job: again.job, deployment: again.deployment, image: again.image, line }
            })
            .collect();
        for again in &mut lines {
            let shown = retry.shown.iter().flatten().find(|shown| shown.job == again.job);
            shown.into_iter().for_each(|shown| hold_to(&mut again.line, shown.disk.as_ref()));
        }
        self.fleet.retry(&mut lines, self.now).map(|()| lines)
    }

    fn told(&mut self, machine: u8, boot: u8, number: u64, step: Step, what: What) {
        let key = key(machine, boot);
        let job = self.fleet.state.newest_job(MachineId(machine.into())).map(|job| job.id);
        let event = StepEvent { number, at_ms: 0, step, what, sources: None };
        self.fleet
            .events(EventBatch { key, job, attempt: None, sent_at_ms: 0, events: vec![event] }, self.now)
            .unwrap();
    }

    fn calls_home(&mut self, machine: u8) {
        let job = self.fleet.state.newest_job(MachineId(machine.into())).unwrap();
        let token = self.fleet.settings.token(job.id, job.attempt);
        self.fleet.confirm(&token, None, self.now).unwrap();
    }

    fn machine(&self, machine: u8) -> &Machine {
        &self.fleet.state.machines[&MachineId(machine.into())]
    }

    fn job(&self, machine: u8) -> &Job {
        self.fleet.state.newest_job(MachineId(machine.into())).unwrap()
    }

    fn logged(&mut self) -> Vec<String> {
        let changes = self.fleet.take_aftermath().changes;
        let text = |change| match change {
            Change::Event(event) => Some(format!("{:?}", event.what)),
            _ => None,
        };
        changes.into_iter().filter_map(text).collect()
    }
}

fn plan(request: &PlanRequest, target: DiskIdentity) -> Plan {
    serde_json::from_value(serde_json::json!({
        "deployment": request.deployment, "job": request.job, "attempt": request.attempt,
        "image": request.image, "image_bytes": 1, "target": target,
        "steps": ["join", "transfer", "seal", "linger", "reboot"],
        "seed": {"key": key(9, 9), "addresses": []},
        "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1,
            "upload_parallel": 1},
        "finish": request.finish, "bundle": null,
    }))
    .unwrap()
}

fn done() -> What {
    What::Done { text: String::new() }
}

#[test]
fn a_cancelled_order_approves_nobody() {
    // H1, first: the machine with an OS is ordered for by mistake, beside an open order for blank machines.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, vec![disk("OS", Contents::Bootable)]));
    trial.open();
    let id = trial.order(&["m1"]).unwrap();
    assert_eq!(trial.machine(1).state, MachineState::Approved);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Discovered);
    assert_eq!(trial.written(report(1, 2, vec![disk("OS", Contents::Bootable)])), None);
}

#[test]
fn a_cancel_gives_back_what_an_admin_said_meanwhile() {
    for (action, wanted) in [
        (MachineAction::Approve, MachineState::Approved),
        (MachineAction::Name("db1".to_owned()), MachineState::Inspected),
        (MachineAction::Hold, MachineState::Inspected),
    ] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let id = trial.order(&["m1"]).unwrap();
        trial.act("m1", action.clone()).unwrap();
        trial.cancel(id);
        assert_eq!(trial.machine(1).state, wanted, "{action:?}");
    }
}

#[test]
fn a_cancel_does_not_undo_a_rejection() {
    // H1, second, and L16: what was ordered for a rejected machine is over, release or not.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let id = trial.order(&["m1"]).unwrap();
    trial.act("m1", MachineAction::Reject).unwrap();
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Rejected);
    trial.act("m1", MachineAction::Release).unwrap();
    assert_eq!(trial.machine(1).state, MachineState::Inspected);
    assert_eq!(trial.written(report(1, 2, blank("A"))), None, "released months later");
}

#[test]
fn an_admins_word_counts_while_the_tailor_works() {
    // H3: each is acknowledged between the report and the plan.
    type Word = fn(&mut Trial, DeploymentId);
    let words: [(&str, Word, JobState); 4] = [
        ("reject", |t, _| drop(t.act("m1", MachineAction::Reject).unwrap()), JobState::Cancelled),
        ("hold", |t, _| drop(t.act("m1", MachineAction::Hold).unwrap()), JobState::Ordered),
        ("cancel", |t, id| t.cancel(id), JobState::Cancelled),
        ("freeze", |t, _| drop(t.fleet.freeze(true, None, t.now)), JobState::Ordered),
    ];
    for (word, say, state) in words {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let id = trial.order(&["m1"]).unwrap();
        assert!(trial.comes(report(1, 2, blank("A"))).is_none(), "{word}");
        say(&mut trial, id);
        assert!(!matches!(trial.tailored(), Instruction::Deploy(_)), "{word}");
        assert_eq!(trial.job(1).state, state, "{word}");
        assert_ne!(trial.machine(1).state, MachineState::Deploying, "{word}");
    }
}

#[test]
fn an_admins_word_counts_between_what_was_shown_and_the_order() {
    for action in [MachineAction::Reject, MachineAction::Hold, MachineAction::Forget] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let order: DeployOrder =
            serde_json::from_value(serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}}))
                .unwrap();
        let mut lines = trial.lines(&order, "debian").unwrap();
        trial.act("m1", action.clone()).unwrap();
        assert!(trial.fleet.place(order, &image("debian"), &mut lines, trial.now).is_err(), "{action:?}");
        assert!(trial.fleet.state.jobs.is_empty(), "{action:?}");
    }
}

#[test]
fn a_running_job_ends_with_a_rejection_and_goes_on_while_held() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 2, blank("A"))).as_deref(), Some("A"));
    let said = trial.act("m1", MachineAction::Hold).unwrap();
    assert!(said[0].text.contains("goes on"), "{said:?}");
    assert_eq!(trial.job(1).state, JobState::Running);
    assert_eq!(trial.written(report(1, 3, blank("A"))), None, "no further attempt while it is held");
    let said = trial.act("m1", MachineAction::Reject).unwrap();
    assert!(said[0].text.contains("is cancelled"), "{said:?}");
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert_eq!(trial.machine(1).state, MachineState::Rejected);
    let dismissed = trial.fleet.take_aftermath().dismissed;
    assert!(dismissed.iter().any(|(key, why)| *key == self::key(1, 2) && why.is_some()), "{dismissed:?}");
}

#[test]
fn what_was_shown_is_what_is_written() {
    // H4 (a): B was shown; at power-on there is another disk instead, or one more.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("B")));
    trial.order(&["m1"]).unwrap();
    let both = vec![disk("A", Contents::Data), disk("B", Contents::Blank)];
    assert_eq!(trial.written(report(1, 2, both)).as_deref(), Some("B"));
    assert_eq!(trial.written(report(1, 3, vec![disk("A", Contents::Data)])), None);
    let cause = trial.job(1).cause.clone().unwrap();
    assert!(cause.contains("serial A") && cause.contains("serial B"), "{cause}");
    assert_eq!(trial.job(1).state, JobState::Refused);
    assert_eq!(
        trial.written(report(1, 4, blank("B"))),
        None,
        "not even when it is back: a person looks first"
    );
}

#[test]
fn who_was_known_by_an_address_only_is_bound_by_its_first_plan() {
    let mut trial = Trial::new();
    let asker =
        crate::fleet::boot_policy::Asker { mac: Some(Mac([2, 0, 0, 0, 0, 1])), uuid: None, serial: None };
    let address = std::net::Ipv4Addr::new(10, 0, 0, 9).into();
    trial
        .fleet
        .sighting(crate::fleet::boot_policy::Sighting::Script { asker, address, says: "load" }, trial.now);
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 1, blank("A"))).as_deref(), Some("A"));
    assert_eq!(trial.job(1).bound.disk.as_ref().map(|disk| disk.serial.as_str()), Some("A"));
    assert_eq!(trial.written(report(1, 2, blank("C"))), None, "the next attempt is for the same disk");
}

#[test]
fn a_refused_job_is_over_until_a_person_has_looked() {
    // H4 (b): two disks are refused; one is pulled, and the other one holds data.
    let mut trial = Trial::new();
    let both = || vec![disk("A", Contents::Data), disk("B", Contents::Blank)];
    trial.reports(report(1, 1, vec![]));
    trial.fleet.state.machines.get_mut(&MachineId(1)).unwrap().hardware = None;
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 2, both())), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    for boot in 3..6 {
        assert_eq!(trial.written(report(1, boot, vec![disk("A", Contents::Data)])), None);
    }
    assert_eq!(trial.job(1).state, JobState::Refused);

    // The person sees what would be written now, and that is what is written.
    trial.reports(report(1, 6, blank("B")));
    let lines = trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).unwrap();
    assert_eq!(lines[0].line.disk.as_ref().unwrap().serial, "B");
    assert_eq!(trial.written(report(1, 7, blank("B"))).as_deref(), Some("B"));
    assert!(trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).is_err(), "it runs");
}

#[test]
fn what_changed_since_it_was_shown_is_refused_by_name() {
    // H4 (d): names and labels are not looked up a second time, and another disk or image is refused.
    let mut trial = Trial::new();
    for machine in 1..=4 {
        trial.reports(report(machine, 1, blank(&format!("D{machine}"))));
        let role = [("role".to_owned(), "web".to_owned())].into();
        let label = MachineAction::Label { set: role, remove: vec![] };
        trial.act(&format!("m{machine}"), label).unwrap();
    }
    let text = serde_json::json!({"image": "debian", "selection": {"labels": ["role=web"]}});
    let mut order: DeployOrder = serde_json::from_value(text).unwrap();
    let lines = trial.lines(&order, "debian").unwrap();
    let shown = |line: &DeployLine| ShownLine { machine: line.machine, disk: line.disk.clone() };
    order.shown =
        Some(Shown { image: image("debian").id, machines: lines.iter().take(3).map(shown).collect() });

    // m1 stays, m2 has another disk, m3 is forgotten, m4 was not shown.
    trial.reports(report(2, 2, blank("OTHER")));
    trial.act("m3", MachineAction::Forget).unwrap();
    let (_, lines) = trial.order_lines(serde_json::to_value(&order).unwrap()).unwrap();
    let refused: Vec<_> = lines.iter().map(|line| (line.machine.0, line.refused.clone())).collect();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert_eq!(refused[0], (1, None));
    assert!(
        refused[1].1.as_ref().is_some_and(|why| why.contains("OTHER") && why.contains("D2")),
        "{refused:?}"
    );
    assert!(refused[2].1.as_ref().is_some_and(|why| why.contains("forgotten")), "{refused:?}");
    assert_eq!(trial.fleet.state.jobs.len(), 1);

    let other = trial.fleet.candidates(&order, &image("another"));
    assert!(other.is_err_and(|refused| refused.error.contains("another one")));
}

#[test]
fn a_machine_that_reported_since_it_was_shown_is_shown_again() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let order = serde_json::json!({
        "image": "debian", "selection": {"machines": ["m1"]},
        "shown": {"image": image("debian").id, "machines": [{"machine": "m1", "disk": null}]},
    });
    let refused = trial.order_lines(order).unwrap_err();
    assert!(refused.cause.as_ref().is_some_and(|why| why.contains("has reported")), "{refused:?}");
}

#[test]
fn a_retry_is_held_to_what_was_shown() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("B")));
    let job = trial.job(1).id;
    let shown = |serial: &str| {
        let disk = Some(DiskIdentity::of(&disk(serial, Contents::Blank)));
        Retry { shown: Some(vec![RetryShown { job, disk }]), ..Retry::default() }
    };
    let refused = trial.retry(shown("A")).unwrap_err();
    assert!(refused.cause.is_some_and(|why| why.contains("serial A")));
    assert_eq!(trial.retry(shown("B")).unwrap().len(), 1);
    assert_eq!(trial.job(1).state, JobState::Ordered);
    trial.cancel(DeploymentId(1));
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "it never began");
}

#[test]
fn a_later_order_is_not_displaced_by_a_retry() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let first = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Transfer, What::Failed { cause: "c".to_owned(), last: true });
    assert_eq!(trial.job(1).state, JobState::Failed);
    let retry = Retry { deployment: Some(first), ..Retry::default() };
    trial.order(&["m1"]).unwrap();
    assert!(trial.retry(retry).is_err());
    assert!(trial.retry(Retry::default()).is_err(), "nothing is named");
    let selection = Selection { machines: vec!["m1".to_owned()], labels: vec![] };
    assert!(trial.retry(Retry { selection, ..Retry::default() }).is_err(), "its newest job waits");
}

#[test]
fn orders_that_nobody_comes_for_end() {
    // H4 (c).
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let named = trial.order(&["m1"]).unwrap();
    let open = trial.open();
    trial.pass(WEEK - 10);
    assert_eq!(trial.job(1).state, JobState::Ordered);
    trial.logged();
    trial.pass(20);
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert!(!trial.fleet.state.deployments[&open].open);
    let logged = trial.logged();
    assert_eq!(logged.iter().filter(|text| text.contains("expired")).count(), 2, "{logged:?}");
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "as before");
    assert_eq!(trial.written(report(1, 2, blank("A"))), None);
    assert!(trial.job(1).cause.as_ref().is_some_and(|why| why.contains("expired")), "{named}");
}

#[test]
fn an_order_says_how_long_it_lives() {
    for (seconds, after, state) in [
        (Some(60), 61, JobState::Cancelled),
        (Some(60), 59, JobState::Ordered),
        (Some(0), 50 * WEEK, JobState::Ordered),
        (Some(u64::MAX), 50 * WEEK, JobState::Ordered),
        (None, WEEK, JobState::Cancelled),
    ] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        trial
            .order_lines(serde_json::json!({
                "image": "debian", "selection": {"machines": ["m1"]}, "expires_seconds": seconds,
            }))
            .unwrap();
        // What an admin sets for all later is for later orders.
        trial.fleet.settings.order_expires =
            Some(SignedDuration::from_secs(if seconds.is_none() { 1 } else { 9 }));
        trial.pass(after);
        assert_eq!(trial.job(1).state, state, "{seconds:?} {after}");
    }
}

#[test]
fn an_agent_that_is_gone_for_as_long_ends_its_job() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Transfer, What::Started);
    trial.pass(WEEK - 5);
    // An agent that has nothing to tell asks all the same.
    let (key, job) = (key(1, 2), Some(trial.job(1).id));
    trial
        .fleet
        .events(EventBatch { key, job, attempt: None, sent_at_ms: 0, events: vec![] }, trial.now)
        .unwrap();
    trial.pass(WEEK - 5);
    assert_eq!(trial.job(1).state, JobState::Running);
    trial.pass(10);
    assert_eq!(trial.job(1).state, JobState::Failed);
    assert_eq!(trial.machine(1).state, MachineState::Failed);
    assert_eq!(
        trial.written(report(1, 3, blank("A"))),
        None,
        "its disk is whatever it is, and nobody thinks of it"
    );
    assert!(trial.fleet.take_aftermath().dismissed.iter().any(|(left, _)| *left == self::key(1, 2)));
}

#[test]
fn while_frozen_nothing_begins_and_what_runs_goes_on() {
    let mut trial = Trial::new();
    for machine in 1..=3 {
        trial.reports(report(machine, 1, blank("A")));
    }
    trial.order(&["m1", "m2"]).unwrap();
    assert!(trial.written(report(1, 2, blank("A"))).is_some());
    trial.act("m3", MachineAction::Approve).unwrap();
    trial.fleet.freeze(true, Some("fire\u{1b}".to_owned()), trial.now);
    assert!(trial.logged().iter().any(|text| text.contains("frozen") && text.contains("fire ")));
    assert!(trial.order(&["m3"]).is_err_and(|refused| refused.error.contains("fire")));
    assert_eq!(trial.written(report(2, 2, vec![disk("A", Contents::Bootable)])), None);
    assert_eq!(trial.job(2).state, JobState::Ordered);
    assert!(trial.written(report(1, 2, blank("A"))).is_some(), "the answer was lost: the same attempt");
    assert_eq!(trial.written(report(1, 3, blank("A"))), None, "a further attempt is something new");
    trial.told(1, 3, 1, Step::Inspect, What::Started);
    let policy = |trial: &Trial, machine: u8| {
        let asker = crate::fleet::boot_policy::Asker {
            mac: Some(Mac([2, 0, 0, 0, 0, machine])),
            uuid: None,
            serial: None,
        };
        trial.fleet.state.policies(false).of(&asker).1
    };
    use crate::fleet::boot_policy::BootPolicy;
    assert_eq!(policy(&trial, 2), BootPolicy::BootDisk, "what is ordered is not begun");
    trial.fleet.freeze(false, None, trial.now);
    assert_eq!(policy(&trial, 2), BootPolicy::Load);
    assert!(trial.written(report(2, 3, blank("A"))).is_some());

    let mut trial = Trial::new();
    trial.open();
    trial.fleet.freeze(true, None, trial.now);
    assert_eq!(trial.written(report(1, 1, blank("A"))), None);
    assert!(trial.fleet.state.jobs.is_empty(), "no open order takes it");
}

#[test]
fn an_open_order_takes_strangers_only_when_every_disk_is_blank() {
    use Contents::{Blank, Bootable, Data, Partitioned, Unreadable};
    let stick = |contents| Disk { removable: true, bus: Bus::Usb, ..disk("U", contents) };
    let table: Vec<(&str, Vec<Disk>, bool)> = vec![
        ("blank", blank("A"), true),
        ("bootable", vec![disk("A", Bootable)], false),
        ("whole-disk LUKS, ZFS, btrfs", vec![disk("A", Data)], false),
        ("a data disk with a GPT and no ESP", vec![disk("A", Partitioned)], false),
        ("unreadable", vec![disk("A", Unreadable)], false),
        ("a stick with data", vec![disk("A", Blank), stick(Data)], false),
        ("a blank stick beside", vec![disk("A", Blank), stick(Blank)], true),
        ("no disk", vec![], false),
    ];
    for (what, disks, taken) in table {
        let mut trial = Trial::new();
        trial.open();
        trial.comes(report(1, 1, disks));
        assert_eq!(!trial.fleet.state.jobs.is_empty(), taken, "{what}");
    }
    // A controller without a driver hides who knows what.
    let mut trial = Trial::new();
    trial.open();
    let mut raid = report(1, 1, blank("A"));
    raid.devices = vec![Device {
        address: "0000:00:17.0".to_owned(),
        modalias: "pci:v00008086d0000282A".to_owned(),
        class: 0x01_04_00,
        driver: String::new(),
    }];
    assert_eq!(trial.written(raid.clone()), None);
    trial.act("m1", MachineAction::Approve).unwrap();
    raid.key = key(1, 2);
    assert!(trial.written(raid).is_some(), "who is approved is taken");
}

#[test]
fn what_was_blank_must_still_be_blank_when_the_plan_is_made() {
    let mut trial = Trial::new();
    trial.open();
    assert!(trial.comes(report(1, 1, blank("A"))).is_none());
    // It is switched off before the plan is made, and comes back with somebody's disk.
    assert_eq!(trial.written(report(1, 2, vec![disk("B", Contents::Data)])), None);
    assert_eq!(trial.job(1).state, JobState::Refused);

    // One that was there when the order was given is bound to its disk, on which somebody installs by hand meanwhile.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.open();
    assert_eq!(trial.job(1).state, JobState::Ordered);
    let by_hand = |boot| report(1, boot, vec![disk("A", Contents::Bootable)]);
    assert_eq!(trial.written(by_hand(2)), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    trial.act("m1", MachineAction::Approve).unwrap();
    trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).unwrap();
    assert!(trial.written(by_hand(3)).is_some(), "an admin has approved it");
}

#[test]
fn the_servers_own_machine_is_no_target() {
    let own = || {
        let marks = Marks { system_serial: Some("sn1".to_owned()), ..Marks::default() };
        let disks = vec![OwnDisk { size: 1 << 30, serial: "LUN".to_owned(), wwn: String::new() }];
        Own { marks, disks }
    };
    let mut trial = Trial::with(own());
    trial.open();
    assert_eq!(trial.written(report(1, 1, blank("A"))), None);
    assert!(trial.order(&["m1"]).is_err_and(|refused| refused.cause.unwrap().contains("server runs on")));
    // A disk of the server's that another machine sees.
    trial.act("m2", MachineAction::Approve).unwrap_err();
    trial.reports(report(2, 1, blank("LUN")));
    assert!(trial.order(&["m2"]).is_err_and(|refused| refused.cause.unwrap().contains("server's own")));
    trial.fleet.state.machines.get_mut(&MachineId(2)).unwrap().hardware = None;
    trial.order(&["m2"]).unwrap();
    assert_eq!(trial.written(report(2, 2, blank("LUN"))), None);
    assert_eq!(trial.job(2).state, JobState::Refused);
    // An agent as an ordinary process on the same host writes to a file.
    let mut process = report(1, 3, vec![Disk { bus: Bus::File, ..disk("", Contents::Blank) }]);
    process.firmware = Firmware::None;
    trial.act("m1", MachineAction::Approve).unwrap();
    assert!(trial.written(process).is_some());
}

#[test]
fn what_is_on_the_disk_after_a_cancel_is_said() {
    // L3: the cancel comes while the disk is made bootable, and after that.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Seal, What::Started);
    trial.cancel(id);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("may boot what was ordered"));
    assert_eq!(trial.machine(1).deployed_image, None);
    trial.told(1, 2, 2, Step::Seal, done());
    assert!(trial.job(1).sealed && trial.job(1).cause.as_ref().unwrap().contains("too late"));
    assert_eq!(trial.machine(1).deployed_image.as_deref(), Some("debian"));
    trial.calls_home(1);
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("called home"));
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "it is not what was wanted");

    // In the middle of the transfer nothing is left of what was there.
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 3, blank("A")));
    trial.told(1, 3, 1, Step::Transfer, What::Started);
    trial.cancel(id);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("in part"));
    assert_eq!(trial.machine(1).deployed_image, None);
}

#[test]
fn a_cancel_before_anything_was_written_takes_nothing_away() {
    let (mut trial, id) = reinstalls(Step::Gather);
    trial.cancel(id);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Deployed, Some("old")));
}

/// A machine with an old OS, an order for it, and its first attempt at `step`.
fn reinstalls(step: Step) -> (Trial, DeploymentId) {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, vec![disk("A", Contents::Bootable)]));
    let mut deployed = trial.machine(1).clone();
    (deployed.state, deployed.deployed_image) = (MachineState::Deployed, Some("old".to_owned()));
    trial.fleet.put_machine(deployed);
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, vec![disk("A", Contents::Bootable)]));
    trial.told(1, 2, 1, step, What::Started);
    (trial, id)
}

#[test]
fn a_refusal_after_the_disk_was_cleared_leaves_no_old_os_to_give_back() {
    let (mut trial, id) = reinstalls(Step::Transfer);
    // The power fails, and the next attempt finds another disk.
    trial.comes(report(1, 3, blank("B")));
    trial.tailored();
    assert_eq!(trial.job(1).state, JobState::Refused);
    trial.cancel(id);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Inspected, None));
}

#[test]
fn what_an_agent_began_before_it_heard_of_the_cancel_counts() {
    let (mut trial, id) = reinstalls(Step::Gather);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Deployed);
    trial.told(1, 2, 2, Step::Transfer, What::Started);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Inspected, None));
    assert!(trial.logged().iter().any(|line| line.contains("may boot nothing")));
}

/// A warning that stops refuses the machine when the order is shown, and again when its plan is made: what is known only
/// by then was never shown.
#[test]
fn what_stops_an_order_refuses_it_until_it_is_accepted() {
    let order = |accept: &[&str]| serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}, "accept": accept});
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("FIRST")));
    let lines = trial.lines(&serde_json::from_value(order(&[])).unwrap(), "debian").unwrap();
    let why = lines[0].refused.clone().unwrap();
    assert!(why.contains("sdb") && why.contains("--accept other-disk"), "{why}");
    trial.order_lines(order(&["other-disk"])).unwrap();
    assert_eq!(trial.written(report(1, 2, blank("FIRST"))).as_deref(), Some("FIRST"));

    // One that only its address told of when the order was given.
    let mut trial = Trial::new();
    let asker =
        crate::fleet::boot_policy::Asker { mac: Some(Mac([2, 0, 0, 0, 0, 1])), uuid: None, serial: None };
    let address = std::net::Ipv4Addr::new(10, 0, 0, 9).into();
    trial
        .fleet
        .sighting(crate::fleet::boot_policy::Sighting::Script { asker, address, says: "load" }, trial.now);
    trial.order_lines(order(&[])).unwrap();
    assert_eq!(trial.written(report(1, 1, blank("FIRST"))), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("--accept other-disk"));
}

/// User-data that switches the call home off is said before any machine is there to say it of.
#[test]
fn an_open_order_is_refused_for_what_its_user_data_does() {
    let order = |data: &str, no_confirm: bool| {
        let mut order: DeployOrder = serde_json::from_value(serde_json::json!({
            "image": "debian", "selection": {}, "open": true, "no_confirm": no_confirm,
        }))
        .unwrap();
        order.user_data = Some(UserData(data.as_bytes().to_vec()));
        Trial::new().fleet.candidates(&order, &image("debian")).map(drop)
    };
    let silent = "#cloud-config\nvendor_data: {enabled: false}\n";
    let refused = order(silent, false).unwrap_err();
    assert!(refused.hint.unwrap().contains("--no-confirm"), "{}", refused.error);
    assert!(order(silent, true).is_ok(), "nobody waits for it");
    assert!(order("#cloud-config\npackages: [vim]\n", false).is_ok());
}
