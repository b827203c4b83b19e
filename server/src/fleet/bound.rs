//! Core: what a job is bound to, so that only the machine and the disk that an admin was shown are written: the
//! machine's marks and the disk. What was not known when the job was ordered is bound by its first plan, and kept from
//! then on. Touches `common`, `fleet::identity` and how the tailor describes disks.

use std::collections::BTreeSet;

use common::id::Mac;
use common::plan::DiskIdentity;

use super::identity::Fingerprint;
use crate::tailor::known_as;

/// The marks of a machine when its job was ordered or planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The system's serial number; `None`, as for the others, if the machine showed none or a placeholder.
    pub system_serial: Option<String>,
    /// The chassis' serial number.
    pub chassis_serial: Option<String>,
    /// The main board's serial number.
    pub board_serial: Option<String>,
    /// The system's UUID, in its normal form.
    pub uuid: Option<String>,
    /// All UUIDs on record for a machine that is compared with a job's marks. The marks that a job keeps use `uuid`.
    pub uuids: BTreeSet<String>,
    /// Its Ethernet addresses; they are compared only if there is no other mark, and then one in common is enough.
    pub macs: BTreeSet<Mac>,
}

impl Marks {
    /// The marks in `print`; of several UUIDs the first is the one that a job keeps.
    #[must_use]
    pub fn of(print: &Fingerprint) -> Self {
        Self {
            system_serial: print.system_serial.clone(),
            chassis_serial: print.chassis_serial.clone(),
            board_serial: print.board_serial.clone(),
            uuid: print.uuids.first().cloned(),
            uuids: print.uuids.clone(),
            macs: print.macs.clone(),
        }
    }

    fn named(&self) -> [(&'static str, &Option<String>); 4] {
        [
            ("UUID", &self.uuid),
            ("system serial", &self.system_serial),
            ("board serial", &self.board_serial),
            ("chassis serial", &self.chassis_serial),
        ]
    }

    /// The first mark by which `shown` is not the machine with these marks, in words; `None` if it may be. A mark that
    /// is missing in `shown` contradicts too: a forged report must not pass by leaving marks out.
    #[must_use]
    pub fn contradicted_by(&self, shown: &Self) -> Option<String> {
        for ((name, ours), (_, theirs)) in self.named().into_iter().zip(shown.named()) {
            match (ours, theirs) {
                (Some(ours), _) if name == "UUID" && shown.uuids.contains(ours) => {}
                (Some(ours), Some(theirs)) if ours != theirs => {
                    return Some(format!("{name} {theirs} instead of {ours}"));
                }
                (Some(ours), None) => return Some(format!("no {name} instead of {ours}")),
                _ => {}
            }
        }
        // NICs are moved and added, but with no other mark on record, no common address means another machine.
        let named = self.named().iter().any(|(_, mark)| mark.is_some());
        let apart = !named && !self.macs.is_empty() && self.macs.is_disjoint(&shown.macs);
        let list = |macs: &BTreeSet<Mac>| macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
        apart.then(|| format!("the address {} instead of {}", list(&shown.macs), list(&self.macs)))
    }

    /// Adds the marks of `shown` that are missing here, and its addresses.
    fn learn(&mut self, shown: &Self) {
        let fill = |ours: &mut Option<String>, theirs: &Option<String>| {
            if ours.is_none() {
                ours.clone_from(theirs);
            }
        };
        fill(&mut self.system_serial, &shown.system_serial);
        fill(&mut self.chassis_serial, &shown.chassis_serial);
        fill(&mut self.board_serial, &shown.board_serial);
        fill(&mut self.uuid, &shown.uuid);
        self.macs.extend(&shown.macs);
    }
}

/// The machine and the disk that a job is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// The machine's marks; `None` for a job of an earlier version that had no plan since.
    pub marks: Option<Marks>,
    /// The disk; `None` until the machine's hardware is known.
    pub disk: Option<DiskIdentity>,
}

/// How a plan differs from what the admin was shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// Another machine; the mark that differs, in words.
    #[error("it is not the machine that was ordered for: it shows {0}")]
    Machine(String),
    /// The same machine, but another of its disks.
    #[error(
        "the disk that would be written is {}, and not the one that was shown: {}",
        known_as(found),
        known_as(shown)
    )]
    Disk {
        /// The disk that the admin was shown.
        shown: Box<DiskIdentity>,
        /// The disk that the plan would write.
        found: Box<DiskIdentity>,
    },
}

impl Bound {
    /// Whether a plan that writes `disk`, for a machine that shows `marks`, is what the admin was shown.
    ///
    /// # Errors
    /// When the machine or the disk is another one.
    pub fn allows(&self, marks: &Marks, disk: &DiskIdentity) -> Result<(), NotShown> {
        if let Some(differs) = self.marks.as_ref().and_then(|ours| ours.contradicted_by(marks)) {
            return Err(NotShown::Machine(differs));
        }
        match &self.disk {
            Some(shown) if !same(shown, disk) => {
                Err(NotShown::Disk { shown: Box::new(shown.clone()), found: Box::new(disk.clone()) })
            }
            _ => Ok(()),
        }
    }

    /// Binds what was not known when the job was ordered to the machine and disk of a plan.
    pub fn bind(&mut self, marks: &Marks, disk: &DiskIdentity) {
        self.marks.get_or_insert_default().learn(marks);
        self.disk.get_or_insert_with(|| disk.clone());
    }
}

/// Whether both are the marks of one disk. The path counts only if both have one: it is a mark only of a disk without
/// serial number and WWN, or while another disk of the machine shows the same ones.
#[must_use]
pub fn same(one: &DiskIdentity, other: &DiskIdentity) -> bool {
    let placed = !one.path.is_empty() && !other.path.is_empty();
    let path = |disk: &DiskIdentity| if placed { disk.path.clone() } else { String::new() };
    DiskIdentity { path: path(one), ..one.clone() } == DiskIdentity { path: path(other), ..other.clone() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::hardware::Bus;

    pub(crate) fn disk(serial: &str) -> DiskIdentity {
        DiskIdentity {
            bus: Bus::Ata,
            size: 1 << 30,
            sector_bytes: 512,
            model: String::new(),
            serial: serial.to_owned(),
            wwn: String::new(),
            path: String::new(),
        }
    }

    fn marks(uuid: &str, serial: &str, mac: u8) -> Marks {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Marks {
            uuid: some(uuid),
            system_serial: some(serial),
            macs: [Mac([2, 0, 0, 0, 0, mac])].into(),
            ..Marks::default()
        }
    }

    #[test]
    fn another_machine_is_not_the_one_that_was_ordered_for() {
        let ordered = marks("u", "s", 1);
        let table = [
            (marks("u", "s", 1), true),
            (marks("u", "s", 9), true),
            (marks("u", "t", 1), false),
            (marks("v", "s", 1), false),
            (marks("", "s", 1), false),
            (marks("u", "", 1), false),
        ];
        for (shown, same) in table {
            assert_eq!(ordered.contradicted_by(&shown).is_none(), same, "{shown:?}");
        }
        let only_an_address = marks("", "", 1);
        assert_eq!(only_an_address.contradicted_by(&marks("u", "s", 1)), None);
        assert!(only_an_address.contradicted_by(&marks("u", "s", 2)).is_some());
        assert_eq!(Marks::default().contradicted_by(&ordered), None);
    }

    #[test]
    fn the_first_plan_binds_what_nobody_was_shown() {
        let mut bound = Bound { marks: Some(marks("", "", 1)), disk: None };
        let seen = marks("u", "s", 1);
        assert_eq!(bound.allows(&seen, &disk("A")), Ok(()));
        bound.bind(&seen, &disk("A"));
        assert_eq!(bound.allows(&seen, &disk("A")), Ok(()));
        assert!(matches!(bound.allows(&seen, &disk("B")), Err(NotShown::Disk { .. })));
        assert!(matches!(bound.allows(&marks("v", "s", 1), &disk("A")), Err(NotShown::Machine(_))));
        let placed = DiskIdentity { path: "port 1".to_owned(), ..disk("A") };
        assert_eq!(
            bound.allows(&seen, &placed),
            Ok(()),
            "another disk with its serial number has come beside it"
        );
        bound.bind(&marks("v", "", 2), &disk("B"));
        assert_eq!((bound.disk, bound.marks.unwrap().uuid.as_deref()), (Some(disk("A")), Some("u")));
    }
}
