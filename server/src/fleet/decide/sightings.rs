//! Core, part of the fleet: takes sightings of DHCP, TFTP and HTTP, which identify no machine by themselves. Maps IP
//! addresses to machines, and records new machines within limits. Touches `common` and the other cores of the fleet.

use std::net::{IpAddr, Ipv4Addr};

use common::id::{Mac, MachineId};
use common::limits::BARE_SIGHTINGS_MAX;
use common::step::{Step, What};
use jiff::Timestamp;

use super::super::boot_policy::{Answered, Asker, ScriptSays, Shown, Sighting};
use super::super::machine::Machine;
use super::super::marks::is_worthy_mac;
use super::super::silence::Seen;
use super::{Fleet, Whose};

impl Fleet {
    /// Takes a sighting.
    pub fn sighting(&mut self, sighting: Sighting, now: Timestamp) {
        match sighting {
            Sighting::PowerOn { asker, firmware, answer, relay } => {
                let Some(machine) = self.seen(&asker, relay, now) else { return };
                // A TFTP request shows only its IP address: the offered address is the only link to its machine.
                if let Answered::Offered { address, .. } = &answer {
                    self.remember((*address).into(), machine);
                }
                self.trace_answer(machine, firmware, &answer, now);
                let text = format!("{firmware}: {answer}");
                // The step is done only when the machine was answered.
                let what = match answer {
                    Answered::Not(_) => What::Note { text },
                    Answered::Offered { .. } | Answered::Proxy { .. } => What::Done { text },
                };
                self.log_once(now, Whose::Machine(machine), Step::PowerOn, what);
            }
            // With another DHCP server, this is the link from the IP address of a TFTP request to its machine.
            Sighting::Address { asker, address } => {
                if let Some(machine) = self.state.asking(&asker).map(|machine| machine.id) {
                    self.remember(address.into(), machine);
                }
            }
            Sighting::BootProgram { address, file, over, bytes, whole } => {
                let on_their_way = if over == "http" { bytes } else { 0 };
                self.trace_address(address, Seen::Program { file: file.clone(), whole, on_their_way }, now);
                let text =
                    format!("{file} over {over}, {bytes} bytes{}", if whole { "" } else { ", given up" });
                self.saw_address(address, (&file, over.to_owned()), text, now);
            }
            Sighting::AsksScript { asker, address } => {
                if let Some(machine) = self.seen(&asker, None, now) {
                    self.remember(address, machine);
                    self.trace(machine, Seen::ProgramRuns, now);
                }
            }
            Sighting::Script { asker, address, says } => {
                if let Some(machine) = self.seen(&asker, None, now) {
                    self.remember(address, machine);
                    let seen = match says {
                        ScriptSays::Load | ScriptSays::Wait => Seen::ToldToLoad,
                        ScriptSays::BootDisk | ScriptSays::BootDiskNoEthernet => Seen::ToldOwnDisk,
                    };
                    self.trace(machine, seen, now);
                }
                let text = format!("boot script: {says}");
                self.saw_address(address, ("boot script", text.clone()), text, now);
            }
            Sighting::LoaderFileBegun { address } => self.trace_address(address, Seen::FileBegun, now),
            Sighting::LoaderFile { address, file, bytes } => {
                self.trace_address(address, Seen::LoaderFile { file: file.clone() }, now);
                let text = format!("{file} over http, {bytes} bytes");
                self.saw_address(address, (&file, "http".to_owned()), text, now);
            }
            Sighting::NeighbourFailed { address, why } => {
                self.saw_address(address, ("neighbour", why.clone()), why, now);
            }
            Sighting::RefusedReport { address, why } => {
                let text = format!("a hardware report was refused: {why}");
                let (machine, name) = (self.by_address.get(&address).copied(), address.to_string());
                let whose = machine.map_or(Whose::Stranger(&name), Whose::Machine);
                self.log_once(now, whose, Step::Inspect, What::Note { text });
            }
            Sighting::System { mac } => self.saw_system(mac, now),
        }
    }

    fn trace_address(&mut self, address: IpAddr, seen: Seen, now: Timestamp) {
        if let Some(machine) = self.by_address.get(&address).copied() {
            self.trace(machine, seen, now);
        }
    }

    /// An OS sent a DHCP request. Recorded only for known machines; others are ignored.
    fn saw_system(&mut self, mac: Mac, now: Timestamp) {
        let asker = Asker { mac: Some(mac), ..Asker::default() };
        let Some(mut machine) = self.state.asking(&asker).cloned() else { return };
        let id = machine.id;
        machine.last_seen = now;
        if !self.is_tight {
            self.put_machine(machine);
        }
        self.trace(id, Seen::System, now);
        let text = "an OS on it asked for an address".to_owned();
        self.log_once(now, Whose::Machine(id), Step::PowerOn, What::Note { text });
    }

    /// Logs `text` for the machine at `address`, or for the address if that is nobody's known; not when `news` (a
    /// subject and words about it) repeats.
    fn saw_address(&mut self, address: IpAddr, news: (&str, String), text: String, now: Timestamp) {
        let machine = self.by_address.get(&address).copied();
        let name = address.to_string();
        let whose = machine.map_or(Whose::Stranger(&name), Whose::Machine);
        self.log_news(now, whose, Step::Loader, news, What::Note { text });
    }

    /// Remembers which machine was last seen under `address`. The map is bounded, because addresses are easily forged.
    pub(in super::super) fn remember(&mut self, address: IpAddr, machine: MachineId) {
        if self.by_address.len() >= 2 * BARE_SIGHTINGS_MAX {
            self.by_address.clear();
        }
        self.by_address.insert(address, machine);
    }

    /// The machine that sent the request; a new one is recorded if it shows an Ethernet address. `None` if it shows
    /// none or exceeds a limit.
    fn seen(&mut self, asker: &Asker, relay: Option<Ipv4Addr>, now: Timestamp) -> Option<MachineId> {
        if let Some(mut machine) = self.state.asking(asker).cloned() {
            let id = machine.id;
            machine.last_seen = now;
            if !self.is_tight {
                self.put_machine(machine);
            }
            return Some(id);
        }
        let mac = asker.mac.filter(|mac| is_worthy_mac(*mac))?;
        if !self.admit_sighting(now) {
            self.dropped += 1;
            return None;
        }
        let mut fingerprint = Shown::of(asker).print();
        // Another machine has this address on record, but UUID or serial number show that this is not that one.
        if self.state.with_mac(mac).next().is_some() {
            fingerprint.weaken(|_| true);
        }
        let id = MachineId(self.state.last_machine + 1);
        let site = relay.map_or_else(|| "local".to_owned(), |relay| self.settings.sites.of(relay.into()));
        self.put_machine(Machine::new(id, fingerprint, site, now));
        Some(id)
    }
}
