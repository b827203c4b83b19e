//! Orders by profiles: which machine by which, what was shown, and what stays of a profile that is gone.

use super::super::super::by_profile::Shares;
use super::*;
use crate::api::shapes::{Pause, ProfileChoice, Scope, ShownProfile};

/// Machines 1 to 4; the first two are labelled `role=web`, the third `role=db`, and all `rack=a`.
fn trial() -> Trial {
    let mut trial = Trial::new();
    for (number, role) in [(1, "web"), (2, "web"), (3, "db"), (4, "")] {
        trial.reports(report(number, 1, blank(&format!("D{number}"))));
        let role = (!role.is_empty()).then(|| ("role".to_owned(), role.to_owned()));
        let set = [("rack".to_owned(), "a".to_owned())].into_iter().chain(role).collect();
        trial.act(&format!("m{number}"), MachineAction::Label { set, remove: vec![] }).unwrap();
    }
    trial.keep("web", "role=web", "web-{id}");
    trial.keep("db", "role=db", "db-{id}");
    trial.keep("rack", "rack=a", "rack-{id}");
    trial.keep("any", "", "any-{id}");
    trial
}

/// Profiles, machines that the order names, the machines of each profile, and those that are left over.
type Shared = (&'static [&'static str], &'static [&'static str], &'static [&'static [u64]], &'static [u64]);

/// The parts of an order with their lines, and the machines that fit none of the profiles.
type Looked = (Vec<Part>, Vec<DeployLine>);

impl Trial {
    fn keep(&mut self, name: &str, machines: &str, hostname: &str) {
        let labels = if machines.is_empty() { vec![] } else { vec![machines.to_owned()] };
        let wish = DeployOrder {
            image: format!("image-{name}"),
            selection: Selection { machines: vec![], labels },
            hostname: Some(hostname.to_owned()),
            user_data: Some(UserData::from("#!secret")),
            ..DeployOrder::default()
        };
        self.fleet.add_profile(name, wish, true, self.now).unwrap();
    }

    fn look(&self, order: &DeployOrder) -> Result<Looked, Refused> {
        let checked = |order: DeployOrder| {
            let order = CheckedOrder::check(order)?;
            let image = image(&order.as_ordered().image);
            Ok((order, image))
        };
        let parts = self.fleet.orders_by_profile(order)?;
        let parts: Vec<_> = parts.into_iter().map(checked).collect::<Result<_, Refused>>()?;
        let Shares { parts: shares, left_over } = self.fleet.share_out(order, &parts)?;
        let line = |candidate: Candidate| {
            let target = candidate.request.as_ref().map(|(asked, hardware)| choose(asked, hardware));
            candidate.line(target, &[])
        };
        let ready = parts.into_iter().zip(shares).map(|((order, image), share)| Part {
            order,
            image,
            lines: share.into_iter().map(line).collect(),
        });
        Ok((ready.collect(), left_over))
    }

    fn order_by(&mut self, order: &DeployOrder) -> Result<Vec<DeploymentId>, Refused> {
        let (mut parts, _) = self.look(order)?;
        let placed = self.fleet.place_all(&mut parts, self.now)?;
        Ok(placed.into_iter().flatten().collect())
    }

    fn hostname(&self, machine: u8) -> String {
        let deployment = self.job(machine).deployment;
        self.fleet.state.deployments[&deployment].hostname(self.machine(machine))
    }
}

/// An order by profiles, as in `--profile web --profile db=role=db --machines m1`.
fn by(profiles: &[&str], machines: &[&str]) -> DeployOrder {
    let choice = |text: &&str| match text.split_once('=') {
        Some((name, machines)) => {
            ProfileChoice { name: name.to_owned(), machines: Some(machines.to_owned()) }
        }
        None => ProfileChoice { name: (*text).to_owned(), machines: None },
    };
    DeployOrder {
        profiles: profiles.iter().map(choice).collect(),
        selection: Selection {
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
            labels: vec![],
        },
        ..DeployOrder::default()
    }
}

#[test]
fn each_machine_is_ordered_by_the_profile_that_it_fits() {
    let table: [Shared; 7] = [
        (&["web"], &[], &[&[1, 2]], &[]),
        (&["web", "db"], &[], &[&[1, 2], &[3]], &[]),
        (&["web", "db"], &["m[1-4]"], &[&[1, 2], &[3]], &[4]),
        (&["web"], &["m1", "m3"], &[&[1]], &[3]),
        (&["any"], &["m[1-4]"], &[&[1, 2, 3, 4]], &[]),
        (&["web=role=db"], &[], &[&[3]], &[]),
        (&["web", "any=!role"], &["m[1-4]"], &[&[1, 2], &[4]], &[3]),
    ];
    for (profiles, machines, wanted, left) in table {
        let (parts, left_over) = trial().look(&by(profiles, machines)).unwrap();
        let numbers = |lines: &[DeployLine]| lines.iter().map(|line| line.machine.0).collect::<Vec<_>>();
        let found: Vec<Vec<u64>> = parts.iter().map(|part| numbers(&part.lines)).collect();
        assert_eq!(found, wanted, "{profiles:?} {machines:?}");
        assert_eq!(numbers(&left_over), left, "{profiles:?} {machines:?}");
        assert!(
            left_over.iter().all(|line| line.refused.as_ref().unwrap().contains(" fit")),
            "{left_over:?}"
        );
        let name = &parts[0].lines[0];
        assert_eq!(name.profile.as_deref(), profiles[0].split('=').next(), "{name:?}");
        assert!(name.hostname.as_ref().unwrap().ends_with(&name.machine.to_string()), "{name:?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_as_a_whole() {
    for (profiles, machines, why) in [
        (&["web", "rack"][..], &[][..], "m1 fits web and rack; m2 fits web and rack"),
        (&["web", "any"], &["m1", "m3"], "m1 fits web and any"),
        (&["web", "web"], &[], "`web` is named twice"),
        (&["wbe"], &[], "no profile `wbe`"),
        (&["web="], &[], "an empty selector"),
        (&["web=role web"], &[], "role web"),
        (&["any"], &[], "the order names no machine"),
        (&["web", "db=role=mail"], &[], "no machine fits the profile `db`"),
        (&["web"], &["m9"], "no machine is known as m9"),
    ] {
        let mut trial = trial();
        let refusal = trial.order_by(&by(profiles, machines)).unwrap_err();
        let words = format!("{}: {}", refusal.error, refusal.cause.unwrap_or_default());
        assert!(words.contains(why), "{profiles:?}: {words}");
        assert!(trial.fleet.state.deployments.is_empty());
    }
    let open = DeployOrder { open: true, ..by(&["web", "db"], &[]) };
    assert!(trial().look(&open).unwrap_err().error.contains("an open order by several profiles"));
    assert!(trial().look(&DeployOrder { open: true, ..by(&["web"], &[]) }).is_ok());
}

#[test]
fn several_profiles_are_ordered_at_once_or_not_at_all() {
    let mut trial = trial();
    trial.fleet.settings.max_machines = 2;
    let order = by(&["web", "db"], &[]);
    let refusal = trial.order_by(&order).unwrap_err();
    assert!(refusal.error.contains("3 machines"), "all of them count against the ceiling: {refusal:?}");
    assert!(trial.fleet.state.deployments.is_empty());
    trial.fleet.settings.max_machines = 3;
    let ids = trial.order_by(&order).unwrap();
    assert_eq!(ids, [DeploymentId(1), DeploymentId(2)]);
    let shown = trial.fleet.state.find_deployment(DeploymentId(2)).unwrap();
    assert_eq!((shown.with, shown.image.as_str()), (vec![DeploymentId(1)], "image-db"));
    assert_eq!((trial.hostname(1), trial.hostname(3)), ("web-m1".to_owned(), "db-m3".to_owned()));
    let logged = trial.logged().join("\n");
    assert!(logged.contains("image-web is ordered, by the profile web"), "{logged}");
    // One alone is with nobody.
    trial.cancel(DeploymentId(1));
    trial.order_by(&by(&["web"], &["m1"])).unwrap();
    assert!(trial.fleet.state.find_deployment(DeploymentId(3)).unwrap().with.is_empty());
}

#[test]
fn what_was_ordered_together_is_paused_and_cancelled_together() {
    let mut trial = trial();
    trial.order_by(&by(&["web", "db"], &[])).unwrap();
    trial.order_by(&by(&["any"], &["m4"])).unwrap();
    let paused = |trial: &Trial| {
        let all = trial.fleet.state.deployments.values();
        all.map(|order| order.paused.is_some()).collect::<Vec<_>>()
    };
    let pause = |trial: &mut Trial, id, pause, together| {
        trial.fleet.pause(DeploymentId(id), &Pause { pause, reason: None, together }, trial.now)
    };
    // Whichever of them is named; and what was ordered by itself is not with them.
    pause(&mut trial, 2, true, true).unwrap();
    assert_eq!(paused(&trial), [true, true, false]);
    pause(&mut trial, 2, false, false).unwrap();
    pause(&mut trial, 1, false, true).unwrap();
    assert_eq!(paused(&trial), [false; 3]);
    // One that is over is passed over; when all are, that is said.
    trial.cancel(DeploymentId(2));
    pause(&mut trial, 2, true, true).unwrap();
    assert_eq!(paused(&trial), [true, false, false]);
    let cancel = Cancel { together: true, ..Cancel::default() };
    trial.fleet.cancel(DeploymentId(2), &cancel, trial.now).unwrap();
    assert!(trial.fleet.state.jobs_of(DeploymentId(1)).all(|job| job.state.is_over()));
    assert!(trial.fleet.state.jobs_of(DeploymentId(3)).all(|job| !job.state.is_over()));
    assert!(pause(&mut trial, 1, true, true).is_err());
    assert!(trial.fleet.cancel(DeploymentId(9), &cancel, trial.now).is_err());
}

#[test]
fn what_was_ordered_stays_when_its_profile_changes_or_goes() {
    let mut trial = trial();
    trial.order_by(&by(&["web"], &["m1"])).unwrap();
    trial.keep("web", "role=db", "changed-{id}");
    assert_eq!(trial.hostname(1), "web-m1");
    trial.fleet.remove_profile("web", trial.now).unwrap();
    let order = &trial.fleet.state.deployments[&DeploymentId(1)].request;
    assert!(order.holds_secrets());
    assert_eq!(order.as_ordered().profile.as_ref().map(|profile| profile.name.as_str()), Some("web"));
    // It fails, and is ordered again by what the profile said then.
    assert_eq!(trial.written(report(1, 2, blank("D1"))).as_deref(), Some("D1"));
    trial.told(1, 2, 1, Step::Transfer, What::Failed { cause: "no".to_owned(), last: true });
    assert_eq!(trial.job(1).state, JobState::Failed);
    let retry = Retry { deployment: Some(DeploymentId(1)), failed: true, ..Retry::default() };
    let lines = trial.retry(retry).unwrap();
    assert_eq!(lines[0].line.profile.as_deref(), Some("web"));
    assert_eq!(lines[0].line.hostname.as_deref(), Some("web-m1"));
    assert_eq!(trial.written(report(1, 3, blank("D1"))).as_deref(), Some("D1"));
}

#[test]
fn what_was_shown_is_ordered_by_the_profile_that_was_shown() {
    let mut trial = trial();
    let mut order = by(&["web", "db"], &[]);
    let (parts, _) = trial.look(&order).unwrap();
    let profiles = parts.iter().map(|part| {
        let used = part.order.as_ordered().profile.clone().unwrap();
        ShownProfile { name: used.name, number: used.number, image: part.image.id }
    });
    let lines = parts.iter().flat_map(|part| &part.lines).filter(|line| line.machine != MachineId(3));
    let lines = lines.map(|line| ShownLine {
        machine: line.machine,
        disk: line.disk.clone(),
        profile: line.profile.clone(),
    });
    order.shown =
        Some(Shown { image: parts[0].image.id, machines: lines.collect(), profiles: profiles.collect() });
    // Labels are not looked up a second time; a profile without a machine is left out.
    let role = [("role".to_owned(), "db".to_owned())].into();
    trial.act("m1", MachineAction::Label { set: role, remove: vec![] }).unwrap();
    let (again, left_over) = trial.look(&order).unwrap();
    assert_eq!((again.len(), again[0].lines.len(), left_over.len()), (1, 2, 0));
    trial.keep("web", "role=web", "other-{id}");
    let refusal = trial.order_by(&order).unwrap_err();
    assert!(refusal.error.contains("another one than the one that was shown"), "{refusal:?}");
    assert!(trial.fleet.state.deployments.is_empty());
}

#[test]
fn a_client_cannot_say_by_which_profile_it_was() {
    let mut trial = trial();
    let used = trial.fleet.profile("web").unwrap().used();
    let order = DeployOrder { image: "debian".to_owned(), profile: Some(used), ..by(&[], &["m1"]) };
    trial.order_by(&order).unwrap();
    assert!(trial.fleet.state.find_deployment(DeploymentId(1)).unwrap().profile.is_none());
}

#[test]
fn a_scope_bounds_what_a_profile_takes_and_what_is_said_of_others() {
    let mut trial = trial();
    trial.order_by(&by(&["web", "db"], &[])).unwrap();
    let scope = Scope { sites: vec![], labels: vec!["role=web".to_owned()] };
    let caller = crate::api::shapes::Caller {
        who: "webs".to_owned(),
        role: crate::api::shapes::Role::Operator,
        scope,
        expires: None,
    };
    trial.fleet.caller = Some(Arc::new(caller));
    let shown = trial.fleet.state.find_deployment(DeploymentId(1)).unwrap();
    assert!(trial.fleet.part_of(shown).unwrap().with.is_empty(), "the other one has no machine of theirs");
    let (parts, _) = trial.look(&by(&["rack"], &[])).unwrap();
    let machines: Vec<u64> = parts[0].lines.iter().map(|line| line.machine.0).collect();
    assert_eq!(machines, [1, 2]);
}
