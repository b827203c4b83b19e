//! Core: the identity of machines: compares the marks in a report with those on record, and decides which machine it
//! is. Touches `api`, `common`, `fleet::marks`.
//!
//! A plan overwrites a disk, so a report is taken for a known machine's only if nothing contradicts that. NICs are
//! moved, boards are replaced, batches share one UUID, and anybody on the network can forge a report: where some marks
//! agree and others do not, an admin has to decide whether it is the same machine, and until then it is a record of its
//! own, in doubt, that gets no plan.
//!
//! | on record, reported before | shown | it is |
//! | --- | --- | --- |
//! | UUID or serial, address | the same, more addresses or not | the same |
//! | UUID and serial | the same, other addresses | the same: its NIC was replaced |
//! | one of UUID, serial | the same, other addresses | in doubt |
//! | UUID, serials, address | another UUID, the rest and the disks the same | the same: the UUID follows the NICs |
//! | UUID or serial, address | the address, and these missing or others | in doubt |
//! | own addresses only | all of them, the disks not all others, no UUID or serial | the same |
//! | own addresses only | some of them, or a UUID or serial that was not there | in doubt |
//! | weak addresses only | one of them, nothing else, a disk in common | the same |
//! | two machines | marks of both | in doubt with both |
//! | own addresses only, and a NIC that asked for a boot | all of them, booted by that NIC | the same, both |
//! | only seen to ask for a boot | its address, nothing that differs | the same |

use std::collections::BTreeSet;

use common::hardware::HardwareReport;
use common::id::{Mac, MachineId};

pub use super::marks::Fingerprint;
use super::marks::disks;
use crate::api::shapes::Doubt;

/// A machine on record that shares a mark with the report.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The number of its record.
    pub id: MachineId,
    /// Its marks on record.
    pub print: &'a Fingerprint,
    /// Its last report; `None` while it is a sighting: it asked to network-boot and has not reported.
    pub hardware: Option<&'a HardwareReport>,
    /// Whether its own identity is in doubt.
    pub doubted: bool,
    /// Whether it has a name, or an admin or an order has acted on it.
    pub claimed: bool,
}

/// Which machine a report is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A machine on record.
    Known {
        /// The number of its record.
        machine: MachineId,
        /// Records of sightings that turn out to be of its other NICs; they are merged into it.
        absorbs: Vec<MachineId>,
        /// Why that is in doubt; empty when it is not.
        doubts: Vec<Doubt>,
    },
    /// A machine that is not on record.
    New {
        /// Why it may be one on record after all; empty when that is ruled out.
        doubts: Vec<Doubt>,
    },
    /// The key is that of this machine's present boot, but the marks contradict those of the machine.
    NotItsBoot(MachineId),
}

/// How well a report fits one machine on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The same machine, by its UUID or a serial number.
    Sure,
    /// The same machine, as far as addresses can tell.
    Likely,
    /// It may be the same machine: an admin has to decide.
    Doubtful,
    /// Another machine.
    Apart,
}

/// The marks of a report compared with those of a machine on record.
#[derive(Debug, Default)]
struct Compared {
    /// Names of the serial numbers that agree.
    serials: Vec<&'static str>,
    /// Whether a UUID agrees.
    uuid: bool,
    /// Names of the marks that both have and that differ.
    differ: Vec<&'static str>,
    /// Names of the marks that are on record and not in the report.
    missing: Vec<&'static str>,
    /// Names of the marks that are in the report and not on record.
    extra: Vec<&'static str>,
    /// Addresses that both have.
    macs: BTreeSet<Mac>,
    /// Those of them that are not weak, neither in the report nor on record.
    own: BTreeSet<Mac>,
}

impl Compared {
    fn new(shown: &Fingerprint, known: &Fingerprint) -> Self {
        let mut this = Self::default();
        for ((name, shown), (_, known)) in shown.serials().into_iter().zip(known.serials()) {
            match (shown, known) {
                (Some(shown), Some(known)) if shown == known => this.serials.push(name),
                (Some(_), Some(_)) => this.differ.push(name),
                (None, Some(_)) => this.missing.push(name),
                (Some(_), None) => this.extra.push(name),
                (None, None) => {}
            }
        }
        match (shown.uuids.is_empty(), known.uuids.is_empty()) {
            (false, false) if shown.uuids.is_disjoint(&known.uuids) => this.differ.push(UUID),
            (false, false) => this.uuid = true,
            (true, false) => this.missing.push(UUID),
            (false, true) => this.extra.push(UUID),
            (true, true) => {}
        }
        this.macs = shown.macs.intersection(&known.macs).copied().collect();
        this.own = this.macs.iter().copied().filter(|mac| shown.owns(*mac) && known.owns(*mac)).collect();
        this
    }

    fn contradicts(&self) -> bool {
        !self.differ.is_empty() || !self.missing.is_empty()
    }
}

const UUID: &str = "UUID";

/// Which machine `report` is from; `shown` are its marks. `candidates` are all machines that share a mark with it;
/// `boot` is the machine whose present boot has the report's key.
#[must_use]
pub fn recognise(
    shown: &Fingerprint,
    report: &HardwareReport,
    candidates: &[Candidate<'_>],
    boot: Option<Candidate<'_>>,
) -> Who {
    let known = |machine| Who::Known { machine, absorbs: vec![], doubts: vec![] };
    let fits: Vec<(Candidate<'_>, Fit)> = candidates
        .iter()
        .filter(|one| !one.doubted)
        .map(|one| (*one, fit(shown, report, one, candidates)))
        .collect();
    let of = |wanted: &dyn Fn(&Candidate<'_>, Fit) -> bool| -> Vec<Candidate<'_>> {
        fits.iter().filter(|(one, fit)| wanted(one, *fit)).map(|(one, _)| *one).collect()
    };
    let same = |fit| matches!(fit, Fit::Sure | Fit::Likely);
    let mut settled = of(&|one, fit| one.hardware.is_some() && same(fit));
    let sighted = of(&|one, fit| one.hardware.is_none() && same(fit));
    let mut rivals = of(&|_, fit| fit == Fit::Doubtful);

    if let Some(boot) = &boot {
        if !confirms(shown, report, boot) {
            return Who::NotItsBoot(boot.id);
        }
        if !boot.doubted {
            return known(boot.id);
        }
    }
    let of_boot = |one: &Candidate<'_>| boot.is_some_and(|boot| boot.id == one.id);
    let again = candidates.iter().find(|one| one.doubted && (exact(shown, one) || of_boot(one)));
    let claimed: Vec<_> = sighted.iter().filter(|one| one.claimed).copied().collect();
    if settled.len() == 1 && rivals.is_empty() && claimed.is_empty() {
        let one = settled.remove(0);
        // Only a UUID or a serial number proves that sightings of other NICs are of this machine.
        let sure = fits.iter().any(|(other, fit)| other.id == one.id && *fit == Fit::Sure);
        let is_of_it = |other: &&Candidate<'_>| sure || is_boot_nic(shown, report, other);
        let absorbs = sighted.iter().filter(is_of_it).map(|other| other.id).collect();
        return Who::Known { machine: one.id, absorbs, doubts: vec![] };
    }
    if settled.is_empty() && rivals.is_empty() {
        match (claimed.as_slice(), sighted.first()) {
            ([one], _) => return known(one.id),
            ([], Some(first)) => {
                let absorbs = sighted.iter().skip(1).map(|one| one.id).collect();
                return Who::Known { machine: first.id, absorbs, doubts: vec![] };
            }
            _ => {}
        }
    }
    rivals.extend(settled);
    rivals.extend(claimed);
    rivals.sort_by_key(|one| one.id);
    let doubts = rivals.iter().map(|one| doubt(shown, one)).collect();
    let sighting = sighted.iter().find(|one| !one.claimed);
    match again.or(sighting) {
        Some(one) => Who::Known { machine: one.id, absorbs: vec![], doubts },
        None => Who::New { doubts },
    }
}

fn fit(shown: &Fingerprint, report: &HardwareReport, known: &Candidate<'_>, all: &[Candidate<'_>]) -> Fit {
    // An address that was taken for the machine's own may turn out to be an adapter's by this report.
    let mut print = known.print.clone();
    print.weaken(|mac| shown.weak.contains(&mac));
    let compared = Compared::new(shown, &print);
    let Some(hardware) = known.hardware else {
        return match (compared.macs.is_empty(), compared.contradicts()) {
            (false, false) => Fit::Sure,
            // No plan was ever given for a mere sighting, so a report that lacks some of its marks replaces it.
            (false, true) if compared.differ.is_empty() && !known.claimed => Fit::Sure,
            (false, true) if known.claimed => Fit::Doubtful,
            _ => Fit::Apart,
        };
    };
    let others = || all.iter().filter(|other| other.id != known.id && other.hardware.is_some());
    // A UUID that two machines have shown identifies neither, even if one of them is in doubt; a shared serial number
    // still counts until an admin has decided that the second is another machine.
    let uuid = compared.uuid && others().all(|other| other.print.uuids.is_disjoint(&shown.uuids));
    let has = |other: &Candidate<'_>, name: &str| {
        let both = shown.serials().into_iter().zip(other.print.serials());
        both.into_iter().any(|((own, mine), (_, theirs))| own == name && mine == theirs)
    };
    let alone = |name: &&'static str| others().filter(|other| !other.doubted).all(|other| !has(other, name));
    let serials: Vec<&str> = compared.serials.iter().copied().filter(alone).collect();
    let (ours, theirs) = (disks(report), disks(hardware));
    let disk_in_common = !ours.is_disjoint(&theirs);
    if !compared.contradicts() && (uuid || !serials.is_empty()) {
        let confirmed = !compared.macs.is_empty() || (uuid && !serials.is_empty());
        return if confirmed { Fit::Sure } else { may_be(&compared, uuid, &serials) };
    }
    if !compared.contradicts() && compared.extra.is_empty() {
        let disks_fit = disk_in_common || theirs.is_empty();
        let mut own = print.own().peekable();
        let only_weak = own.peek().is_none() && shown.own().next().is_none();
        let same = if only_weak {
            !compared.macs.is_empty() && disk_in_common
        } else {
            !compared.own.is_empty() && own.all(|mac| shown.macs.contains(&mac)) && disks_fit
        };
        if same {
            return Fit::Likely;
        }
    }
    let follows_nics = compared.differ == [UUID] && compared.missing.is_empty() && !compared.own.is_empty();
    if follows_nics && (serials.len() >= 2 || (!serials.is_empty() && disk_in_common)) {
        return Fit::Sure;
    }
    may_be(&compared, uuid, &serials)
}

/// Whether a sighting shows only the address of the NIC that the report says its machine booted from. Where there are
/// no other marks, requests from that NIC would otherwise be taken for the sighting's, and get the loader at every boot
/// whatever the machine's policy is. One report absorbs one sighting at most, none that an admin or an order has named,
/// and none of an adapter: the next machine that boots from that must be discovered.
fn is_boot_nic(shown: &Fingerprint, report: &HardwareReport, sighting: &Candidate<'_>) -> bool {
    let booted: BTreeSet<Mac> = report.nics.iter().filter(|nic| nic.boot).map(|nic| nic.mac).collect();
    let only_an_address = !sighting.print.is_strong() && sighting.print.macs == booted;
    !sighting.claimed && only_an_address && booted.iter().all(|mac| shown.owns(*mac))
}

/// For a machine that is not surely the same: whether it may be, or shares only marks that whole batches share. All
/// blades of a chassis show its serial number, and two machines were seen with the same board serial.
fn may_be(compared: &Compared, uuid: bool, serials: &[&str]) -> Fit {
    let may_be = !compared.own.is_empty()
        || serials.contains(&"system serial")
        || (uuid && compared.differ.is_empty());
    if may_be { Fit::Doubtful } else { Fit::Apart }
}

/// Whether a report under the key of `boot`'s present boot is still from that machine: a NIC or a disk may come and go
/// in between, but no mark may contradict those on record.
fn confirms(shown: &Fingerprint, report: &HardwareReport, boot: &Candidate<'_>) -> bool {
    if shown.is_empty() || boot.print.is_empty() {
        return shown.is_empty() && boot.print.is_empty();
    }
    let compared = Compared::new(shown, boot.print);
    let strong = compared.uuid || !compared.serials.is_empty();
    let (ours, theirs) = (disks(report), boot.hardware.map(disks).unwrap_or_default());
    // Without other marks than addresses, a disk of the earlier report has to be there, too.
    let by_address = theirs.is_empty() || !ours.is_disjoint(&theirs);
    let addresses = if boot.print.own().next().is_some() { &compared.own } else { &compared.macs };
    // A UUID that follows the NICs is no contradiction: it was added to the record when it was first shown.
    let same_address = !addresses.is_empty() && by_address && compared.extra.is_empty();
    !compared.contradicts() && (strong || same_address)
}

/// Whether exactly these marks are on record: a machine in doubt is recognised by that when it reports again.
fn exact(shown: &Fingerprint, known: &Candidate<'_>) -> bool {
    let compared = Compared::new(shown, known.print);
    let agrees = compared.uuid || !compared.serials.is_empty();
    let same_macs = compared.macs.len() == shown.macs.len() && shown.macs.len() == known.print.macs.len();
    !compared.contradicts() && compared.extra.is_empty() && (agrees || !compared.macs.is_empty()) && same_macs
}

fn doubt(shown: &Fingerprint, known: &Candidate<'_>) -> Doubt {
    let compared = Compared::new(shown, known.print);
    let differs = compared.differ.iter().map(|name| format!("another {name}"));
    let missing = compared.missing.iter().map(|name| format!("no {name}"));
    let extra = compared.extra.iter().map(|name| format!("a {name} that was not there"));
    let mut against: Vec<String> = differs.chain(missing).chain(extra).collect();
    if compared.macs.is_empty() {
        against.push("other Ethernet addresses".to_owned());
    } else if known.print.own().any(|mac| !shown.macs.contains(&mac)) {
        against.push("not all of its Ethernet addresses".to_owned());
    }
    Doubt { other: known.id, shared: shared(shown, known.print), against }
}

/// The marks that both have, in words.
#[must_use]
pub fn shared(shown: &Fingerprint, known: &Fingerprint) -> Vec<String> {
    let serials = shown.serials().into_iter().zip(known.serials());
    let serials = serials.filter(|((_, ours), (_, theirs))| ours.is_some() && ours == theirs);
    let mut words: Vec<String> =
        serials.filter_map(|((name, serial), _)| Some(format!("{name} {}", serial?))).collect();
    words.extend(shown.uuids.intersection(&known.uuids).map(|uuid| format!("{UUID} {uuid}")));
    words.extend(shown.macs.intersection(&known.macs).map(Mac::to_string));
    words
}

#[cfg(test)]
mod tests;
