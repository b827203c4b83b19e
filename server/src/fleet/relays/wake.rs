//! Core, part of the fleet: which machines are woken with magic packets, and by whom: those of a relay's site by the
//! relays there, all others by the server itself, on its own LAN. Touches `api`, `common` and the other cores.

use common::id::{Mac, MachineId};
use common::step::{Step, What};
use common::wire::http::Refused;
use common::wire::relay::Wake;
use jiff::Timestamp;

use super::super::decide::{Fleet, Whose};
use super::super::machine::Machine;
use super::super::order::refused;
use super::super::presence::{WakeOrder, is_away};
use crate::api::shapes::{MachineChanged, MachineState, MachineWake};

/// The most wakes that relays are told of at once.
const WAKES_MAX: usize = 4096;

/// A machine that the server wakes on its own LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanWake {
    /// The machine.
    pub machine: MachineId,
    /// The Ethernet address to wake.
    pub mac: Mac,
}

impl Fleet {
    /// Orders wakes of the selected machines. Returns what is done for each, and those that the server is to wake itself.
    ///
    /// # Errors
    /// When the selection is refused, or too many are woken already.
    pub fn wake(
        &mut self,
        order: &MachineWake,
        now: Timestamp,
    ) -> Result<(Vec<MachineChanged>, Vec<LanWake>), Refused> {
        let chosen = self.select(&order.selection)?;
        self.relays.wakes.retain(|order| order.is_fresh(now));
        if self.relays.wakes.len() + chosen.len() > WAKES_MAX {
            let error = format!("more than {WAKES_MAX} machines would be woken by relays at once");
            return Err(refused(error, "wake some of them, and the rest in some minutes"));
        }
        let (mut lines, mut own) = (vec![], vec![]);
        for id in chosen {
            let Some(machine) = self.state.machines.get(&id).cloned() else { continue };
            let (text, is_done) = match macs_to_wake(&machine) {
                Err(why) => (format!("not woken: {why}"), false),
                Ok(_) if order.dry_run => {
                    (format!("would be woken {}", self.by_whom(&machine.site, now)), false)
                }
                Ok(macs) => (self.wake_machine(&machine, &macs, &mut own, now), true),
            };
            if is_done {
                let what = What::Note { text: format!("{}: {text}", self.caller_name()) };
                self.log(now, Whose::Machine(id), Step::PowerOn, what);
            }
            lines.push(MachineChanged { machine: id, name: machine.shown_name(), text });
        }
        Ok((lines, own))
    }

    fn wake_machine(
        &mut self,
        machine: &Machine,
        macs: &[Mac],
        own: &mut Vec<LanWake>,
        now: Timestamp,
    ) -> String {
        if self.relays_at(&machine.site, now).is_empty() {
            own.extend(macs.iter().map(|mac| LanWake { machine: machine.id, mac: *mac }));
        } else {
            for mac in macs {
                // The time, so that numbers grow over restarts of the server as well.
                let number = u64::try_from(now.as_millisecond()).unwrap_or(0).max(self.relays.last_wake + 1);
                self.relays.last_wake = number;
                let wake = Wake { number, machine: machine.id, mac: *mac };
                self.relays.wakes.push(WakeOrder { site: machine.site.clone(), wake, at: now });
            }
        }
        let macs: Vec<String> = macs.iter().map(Mac::to_string).collect();
        format!("woken {}, at {}", self.by_whom(&machine.site, now), macs.join(", "))
    }

    fn by_whom(&self, site: &str, now: Timestamp) -> String {
        match self.relays_at(site, now).as_slice() {
            [] => "from the server's own network".to_owned(),
            names => format!("by {}", names.join(" and ")),
        }
    }

    /// The names of the relays of `site` that are there.
    fn relays_at(&self, site: &str, now: Timestamp) -> Vec<String> {
        let here = |key| self.relays.here.get(&key).is_some_and(|presence| !is_away(presence, now));
        let relays = self.state.relays.values().filter(|relay| relay.site == site);
        relays.filter(|relay| relay.key().is_some_and(here)).map(|relay| relay.name.clone()).collect()
    }
}

/// The addresses of a machine that are woken: the card that it booted from, or all if that is not known. Addresses that
/// several machines show would wake another one.
fn macs_to_wake(machine: &Machine) -> Result<Vec<Mac>, String> {
    if matches!(machine.state, MachineState::Rejected | MachineState::Retired) {
        return Err("it was rejected; `machine release` ends that".to_owned());
    }
    let report = machine.hardware.as_ref().map(|hardware| hardware.report());
    let boot = report.and_then(|report| report.nics.iter().find(|nic| nic.boot)).map(|nic| nic.mac);
    let macs = boot.map_or_else(|| machine.fingerprint.own().collect(), |mac| vec![mac]);
    if macs.is_empty() { Err("no Ethernet address of its own is known".to_owned()) } else { Ok(macs) }
}
