//! Core: what a relay knows of its site: the parts of the server's state, and how a machine is answered by them while the
//! server cannot be asked. Touches the fleet's boot policies.

use std::collections::HashMap;

use common::id::MachineId;
use common::wire::relay::{
    BootFile, Known, SiteBoot, SiteMachine, SiteMachines, SitePolicy, SiteState, SiteWork, mark,
};

use crate::fleet::boot_policy::{Asker, BootPolicies, BootPolicy, KnownBy};

/// The site as the server last told it.
#[derive(Debug, Clone, Default)]
pub(super) struct Site {
    state: SiteState,
    known: Known,
    policies: BootPolicies,
    by_id: HashMap<MachineId, SitePolicy>,
}

/// How a machine is answered while the server cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// A job is open for it: it asks again until the server answers, and does not boot its old disk.
    Wait,
    /// Its own disk: nothing is ordered for it.
    BootDisk,
    /// Its own disk, and no more than needed is said: it was rejected, or is not served.
    Ignore,
}

impl Site {
    /// The site in which the parts of `news` have replaced older ones.
    #[must_use]
    pub(super) fn with(&self, news: SiteState) -> Self {
        let mut site = self.clone();
        if let Some(boot) = news.boot {
            (site.known.boot, site.state.boot) = (Some(mark(&boot)), Some(boot));
        }
        if let Some(machines) = news.machines {
            site.policies = policies(&machines);
            site.by_id = machines.machines.iter().map(|machine| (machine.machine, machine.policy)).collect();
            (site.known.machines, site.state.machines) = (Some(mark(&machines)), Some(machines));
        }
        if let Some(work) = news.work {
            (site.known.work, site.state.work) = (Some(mark(&work)), Some(work));
        }
        site
    }

    /// The parts, to be kept over a restart.
    pub(super) fn state(&self) -> &SiteState {
        &self.state
    }

    /// Which parts it has, for the server.
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// What machines boot with; none until the server has told it.
    pub(super) fn boot(&self) -> Option<&SiteBoot> {
        self.state.boot.as_ref()
    }

    /// What is to be done beside answering machines; none until the server has told it.
    pub(super) fn work(&self) -> Option<&SiteWork> {
        self.state.work.as_ref()
    }

    /// The boot policies of the site's machines.
    pub(super) fn policies(&self) -> &BootPolicies {
        &self.policies
    }

    /// A file that machines boot with, by its path on the server's HTTP.
    pub(super) fn file(&self, path: &str) -> Option<&BootFile> {
        let boot = self.boot()?;
        boot.files.iter().chain(&boot.programs).find(|file| file.path == path)
    }

    /// Whether a machine that is not on record is answered.
    pub(super) fn discovers(&self) -> bool {
        self.boot().is_some_and(|boot| boot.discover)
    }

    /// How `asker` is answered while the server cannot be asked.
    pub(super) fn alone(&self, asker: &Asker) -> Alone {
        if self.known.machines.is_none() || self.known.boot.is_none() {
            // Nothing was told yet: an open job is as likely as none.
            return Alone::Wait;
        }
        let (machine, policy) = self.policies.of(asker);
        match machine.and_then(|machine| self.by_id.get(&machine)) {
            Some(SitePolicy::Job) => Alone::Wait,
            Some(SitePolicy::Load | SitePolicy::BootDisk) => Alone::BootDisk,
            Some(SitePolicy::Ignore) => Alone::Ignore,
            None if policy == BootPolicy::Unknown && self.discovers() => Alone::BootDisk,
            None => Alone::Ignore,
        }
    }
}

fn policies(machines: &SiteMachines) -> BootPolicies {
    let mut policies = BootPolicies::default();
    for machine in &machines.machines {
        let SiteMachine { machine: id, uuids, serial, own, weak, policy } = machine.clone();
        let policy = match policy {
            SitePolicy::Job | SitePolicy::Load => BootPolicy::Load,
            SitePolicy::BootDisk => BootPolicy::BootDisk,
            SitePolicy::Ignore => BootPolicy::Ignore,
        };
        let uuids = uuids.into_iter().collect();
        policies.insert(KnownBy { machine: id, uuids, serial, own, weak }, policy);
    }
    policies
}

#[cfg(test)]
mod tests {
    use common::id::{Hash, Mac};

    use super::*;

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn machines(policies: &[SitePolicy]) -> SiteMachines {
        let machine = |(at, policy): (u8, &SitePolicy)| SiteMachine {
            machine: MachineId(at.into()),
            uuids: vec![],
            serial: None,
            own: vec![mac(at)],
            weak: vec![],
            policy: *policy,
        };
        SiteMachines { machines: (1..).zip(policies).map(machine).collect() }
    }

    #[test]
    fn a_machine_with_a_job_waits_for_the_server_and_others_boot_their_disks() {
        use SitePolicy::{BootDisk, Ignore, Job, Load};
        let news = SiteState {
            machines: Some(machines(&[Job, Load, BootDisk, Ignore])),
            boot: Some(SiteBoot { discover: true, ..SiteBoot::default() }),
            ..SiteState::default()
        };
        let stranger = Asker { mac: Some(mac(7)), ..Asker::default() };
        assert_eq!(Site::default().alone(&stranger), Alone::Wait, "nothing was told yet");
        let site = Site::default().with(news);
        let wanted = [
            (1, BootPolicy::Load, Alone::Wait),
            (2, BootPolicy::Load, Alone::BootDisk),
            (3, BootPolicy::BootDisk, Alone::BootDisk),
            (4, BootPolicy::Ignore, Alone::Ignore),
            (5, BootPolicy::Unknown, Alone::BootDisk),
        ];
        for (last, policy, alone) in wanted {
            let asker = Asker { mac: Some(mac(last)), ..Asker::default() };
            assert_eq!((site.policies().of(&asker).1, site.alone(&asker)), (policy, alone), "{last}");
        }
        let news = SiteState { boot: Some(SiteBoot::default()), ..SiteState::default() };
        let strange = Asker { mac: Some(mac(5)), ..Asker::default() };
        assert_eq!(site.with(news).alone(&strange), Alone::Ignore, "no discovery");
    }

    #[test]
    fn a_part_that_is_not_sent_stays_and_the_marks_are_the_servers() {
        let boot = SiteBoot {
            programs: vec![BootFile {
                name: "snponly.efi".to_owned(),
                hash: Hash::of(b"program"),
                bytes: 7,
                path: "/nbp/snponly.efi".to_owned(),
            }],
            ..SiteBoot::default()
        };
        let first = Site::default().with(SiteState { boot: Some(boot.clone()), ..SiteState::default() });
        assert_eq!(first.known(), Known { boot: Some(mark(&boot)), ..Known::default() });
        let work = SiteWork::default();
        let second = first.with(SiteState { work: Some(work.clone()), ..SiteState::default() });
        assert_eq!((second.known().boot, second.known().work), (Some(mark(&boot)), Some(mark(&work))));
        assert_eq!(second.file("/nbp/snponly.efi").map(|file| file.bytes), Some(7));
        assert_eq!(second.file("/nbp/other.efi"), None);
        let again = Site::default().with(second.state().clone());
        assert_eq!(again.known(), second.known(), "as it is read after a restart");
    }
}
