//! Core: recognises the machine that the server runs on, which is never a target, by its marks, and its disks by
//! theirs: another machine may see them over a storage network. Touches `common`, `fleet::bound`.

use common::plan::DiskIdentity;

use super::bound::Marks;

/// The marks of the server's own machine and of its disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// The marks that firmware and network interfaces of this host show; those that the kernel does not show are empty.
    pub marks: Marks,
    /// Its disks that have a serial number or a WWN; others cannot be recognised on another machine.
    pub disks: Vec<OwnDisk>,
}

/// The marks of one of the server's disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnDisk {
    /// In bytes; 0 when the kernel does not show it.
    pub size: u64,
    /// Its serial number; empty when it has none.
    pub serial: String,
    /// Its world wide name; empty when it has none.
    pub wwn: String,
}

impl Own {
    /// The mark by which a machine with the marks `shown` is this one, in words; `None` if it is another. One Ethernet
    /// address is enough. So is a UUID or serial number, unless the other of the two differs: whole batches of boards
    /// share a UUID, and some makers give one serial number to all.
    #[must_use]
    pub fn shows(&self, shown: &Marks) -> Option<String> {
        if let Some(mac) = self.marks.macs.intersection(&shown.macs).next() {
            return Some(format!("its address {mac}"));
        }
        let same = |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
        let differs = |ours: &Option<String>, theirs: &Option<String>| {
            ours.is_some() && theirs.is_some() && ours != theirs
        };
        let (ours, theirs) = (&self.marks, shown);
        let pairs = [
            ("UUID", &ours.uuid, &theirs.uuid, differs(&ours.system_serial, &theirs.system_serial)),
            ("serial number", &ours.system_serial, &theirs.system_serial, differs(&ours.uuid, &theirs.uuid)),
        ];
        pairs
            .into_iter()
            .find(|(_, ours, theirs, differs)| same(ours, theirs) && !differs)
            .map(|(name, ours, ..)| format!("its {name} {}", ours.as_deref().unwrap_or_default()))
    }

    /// Whether `disk` is one of the server's own: by its WWN, or by its serial number and size.
    #[must_use]
    pub fn has(&self, disk: &DiskIdentity) -> bool {
        let known = |text: &str| !text.trim().is_empty();
        self.disks.iter().any(|own| {
            (known(&own.wwn) && own.wwn == disk.wwn)
                || (known(&own.serial) && own.serial == disk.serial && own.size == disk.size)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bound::tests::disk;
    use super::*;
    use common::id::Mac;

    fn marks(uuid: Option<&str>, serial: Option<&str>, macs: &[u8]) -> Marks {
        Marks {
            uuid: uuid.map(str::to_owned),
            system_serial: serial.map(str::to_owned),
            macs: macs.iter().map(|last| Mac([2, 0, 0, 0, 0, *last])).collect(),
            ..Marks::default()
        }
    }

    #[test]
    fn the_server_is_known_by_any_of_its_marks() {
        let own = Own { marks: marks(Some("u"), Some("s"), &[1, 2]), disks: vec![] };
        let table = [
            (marks(Some("u"), Some("s"), &[9]), true),
            (marks(Some("v"), Some("t"), &[2, 3]), true),
            (marks(Some("u"), None, &[]), true),
            (marks(None, Some("s"), &[7]), true),
            // Boards of one batch share a UUID, and have serial numbers of their own.
            (marks(Some("u"), Some("t"), &[9]), false),
            (marks(Some("v"), Some("s"), &[9]), false),
            (marks(None, None, &[9]), false),
            (Marks::default(), false),
        ];
        for (shown, wanted) in table {
            assert_eq!(own.shows(&shown).is_some(), wanted, "{shown:?}");
        }
        assert_eq!(Own::default().shows(&Marks::default()), None);
    }

    #[test]
    fn a_disk_of_the_server_is_known_from_any_machine() {
        let own = |serial: &str, wwn: &str| Own {
            disks: vec![OwnDisk { size: 1 << 30, serial: serial.to_owned(), wwn: wwn.to_owned() }],
            ..Own::default()
        };
        let lun = DiskIdentity { wwn: "naa.6".to_owned(), ..disk("X") };
        assert!(own("A", "").has(&disk("A")));
        assert!(own("", "naa.6").has(&lun));
        assert!(!own("A", "").has(&disk("B")));
        assert!(!own("A", "").has(&DiskIdentity { size: 1, ..disk("A") }), "sticks share serial numbers");
        assert!(!own("", "").has(&disk("")));
    }
}
