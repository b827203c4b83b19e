//! Core: limits which transfers may run. Touches nothing; times are milliseconds of a monotonic clock.
//!
//! A request costs its sender one packet, whose source may be forged, and makes the server send until somebody answers.
//! So each address has at most one transfer that was not answered yet: an attacker can make the server send a victim
//! about eight short packets a second and no more, and when the limit on all transfers is reached, the oldest
//! unanswered one is ended.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use common::limits::{TFTP_TRANSFERS_MAX, TFTP_TRANSFERS_PER_ADDRESS_MAX};

use super::request::Read;

/// Milliseconds without a packet of the machine after which its transfer is ended for another request of the same
/// machine: a ROM that was reset sends from the port that it had, and some abandon a transfer silently.
const GIVES_WAY_MS: u64 = 500;

/// A running transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Transfer {
    id: u64,
    port: u16,
    read: Read,
    answered: bool,
    heard_ms: u64,
}

/// What is done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// Start this transfer, and end the other one, if any.
    Begin {
        /// The new transfer's number.
        id: u64,
        /// The number of the transfer to end.
        instead_of: Option<u64>,
    },
    /// Send nothing: the same transfer is running, or the address has another one that must be answered first. A real
    /// client retries.
    Wait,
    /// Refuse: the limit on transfers is reached.
    Full,
}

/// The running transfers, by the address of their clients.
#[derive(Debug, Default)]
pub(super) struct Gate {
    by_address: HashMap<Ipv4Addr, Vec<Transfer>>,
    last: u64,
}

impl Gate {
    /// Decides about a request for a file.
    pub(super) fn ask(&mut self, client: SocketAddrV4, read: &Read, now_ms: u64) -> Admission {
        let own = self.by_address.get(client.ip()).map_or(&[][..], Vec::as_slice);
        let instead_of = match conflict(own, client.port(), read, now_ms) {
            Ok(other) => other,
            Err(Waits) => return Admission::Wait,
        };
        if own.len() - usize::from(instead_of.is_some()) >= TFTP_TRANSFERS_PER_ADDRESS_MAX {
            return Admission::Full;
        }
        let instead_of = match instead_of {
            None if self.len() >= TFTP_TRANSFERS_MAX => match self.oldest_unanswered() {
                None => return Admission::Full,
                oldest => oldest,
            },
            other => other,
        };
        if let Some(other) = instead_of {
            self.end(other);
        }
        self.last += 1;
        let transfer = Transfer {
            id: self.last,
            port: client.port(),
            read: read.clone(),
            answered: false,
            heard_ms: now_ms,
        };
        self.by_address.entry(*client.ip()).or_default().push(transfer);
        Admission::Begin { id: self.last, instead_of }
    }

    /// Notes that the client of this transfer sent a packet.
    pub(super) fn heard(&mut self, id: u64, now_ms: u64) {
        if let Some(transfer) = self.by_address.values_mut().flatten().find(|transfer| transfer.id == id) {
            (transfer.answered, transfer.heard_ms) = (true, now_ms);
        }
    }

    /// The transfer with this client, if one is running.
    pub(super) fn of(&self, client: SocketAddrV4) -> Option<u64> {
        let own = self.by_address.get(client.ip())?;
        own.iter().find(|transfer| transfer.port == client.port()).map(|transfer| transfer.id)
    }

    /// Removes a transfer that has ended.
    pub(super) fn end(&mut self, id: u64) {
        self.by_address.retain(|_, own| {
            own.retain(|transfer| transfer.id != id);
            !own.is_empty()
        });
    }

    /// How many transfers are running.
    pub(super) fn len(&self) -> usize {
        self.by_address.values().map(Vec::len).sum()
    }

    fn oldest_unanswered(&self) -> Option<u64> {
        self.by_address
            .values()
            .flatten()
            .filter(|transfer| !transfer.answered)
            .map(|transfer| transfer.id)
            .min()
    }
}

/// A request that is to be ignored for now.
struct Waits;

/// The transfer of the same address that must end for this request, if any.
fn conflict(own: &[Transfer], port: u16, read: &Read, now_ms: u64) -> Result<Option<u64>, Waits> {
    let old = |transfer: &Transfer| now_ms.saturating_sub(transfer.heard_ms) >= GIVES_WAY_MS;
    if let Some(same) = own.iter().find(|transfer| transfer.port == port) {
        let repeated = same.read == *read;
        return match (repeated, same.answered) {
            // Its packets are repeated every quarter of a second anyway.
            (true, false) => Err(Waits),
            (false, true) => Ok(Some(same.id)),
            (true, true) | (false, false) if old(same) => Ok(Some(same.id)),
            (true, true) | (false, false) => Err(Waits),
        };
    }
    match own.iter().find(|transfer| !transfer.answered) {
        None => Ok(None),
        Some(other) if old(other) => Ok(Some(other.id)),
        Some(_) => Err(Waits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), port)
    }

    fn read(file: &str) -> Read {
        Read { file: file.to_owned(), options: vec![], shown: file.to_owned() }
    }

    fn begin(id: u64) -> Admission {
        Admission::Begin { id, instead_of: None }
    }

    #[test]
    fn an_address_has_one_transfer_that_nobody_has_answered() {
        let mut gate = Gate::default();
        assert_eq!(gate.ask(client(1, 1), &read("a"), 0), begin(1));
        for port in 1..100 {
            assert_eq!(gate.ask(client(1, port), &read("a"), 499), Admission::Wait, "{port}");
        }
        assert_eq!(gate.ask(client(2, 1), &read("a"), 499), begin(2), "another address");
        // A silent transfer is ended for a new one, so that a machine is never locked out for long.
        assert_eq!(gate.ask(client(1, 9), &read("a"), 500), Admission::Begin { id: 3, instead_of: Some(1) });
        gate.heard(3, 501);
        assert_eq!(gate.ask(client(1, 10), &read("a"), 502), begin(4), "the other was answered");
        assert_eq!(gate.len(), 3);
    }

    #[test]
    fn a_rom_that_asks_twice_from_one_port_is_heard() {
        let mut gate = Gate::default();
        assert_eq!(gate.ask(client(1, 2070), &read("a"), 0), begin(1));
        // The transfer for the size is aborted; then the same port requests the file.
        assert_eq!(gate.of(client(1, 2070)), Some(1));
        gate.end(1);
        assert_eq!(gate.ask(client(1, 2070), &read("a"), 1), begin(2));
        gate.heard(2, 2);
        assert_eq!(
            gate.ask(client(1, 2070), &read("a"), 100),
            Admission::Wait,
            "the network made two of one"
        );
        assert_eq!(
            gate.ask(client(1, 2070), &read("b"), 100),
            Admission::Begin { id: 3, instead_of: Some(2) }
        );
        gate.heard(3, 100);
        // It was reset in the middle and starts again from the port that it had.
        assert_eq!(
            gate.ask(client(1, 2070), &read("b"), 600),
            Admission::Begin { id: 4, instead_of: Some(3) }
        );
    }

    #[test]
    fn when_all_is_taken_forgeries_give_way_and_machines_stay() {
        let mut gate = Gate::default();
        assert_eq!(gate.ask(client(1, 1), &read("a"), 0), begin(1));
        gate.heard(1, 1);
        for n in 0..u32::try_from(2 * TFTP_TRANSFERS_MAX).unwrap() {
            let forged = SocketAddrV4::new(Ipv4Addr::from_bits(0x0a01_0000 + n), 7);
            assert!(matches!(gate.ask(forged, &read("a"), 2), Admission::Begin { .. }), "{n}");
            assert!(gate.len() <= TFTP_TRANSFERS_MAX);
        }
        assert_eq!(gate.of(client(1, 1)), Some(1));
    }

    #[test]
    fn an_address_has_a_bound_and_places_are_given_back() {
        let mut gate = Gate::default();
        for n in 0..TFTP_TRANSFERS_PER_ADDRESS_MAX {
            let port = u16::try_from(n).unwrap();
            let Admission::Begin { id, .. } = gate.ask(client(1, port), &read("a"), 0) else { panic!("{n}") };
            gate.heard(id, 0);
        }
        assert_eq!(gate.ask(client(1, 9999), &read("a"), 0), Admission::Full);
        gate.end(1);
        assert!(matches!(gate.ask(client(1, 9999), &read("a"), 0), Admission::Begin { .. }));
        (0..=u64::try_from(TFTP_TRANSFERS_PER_ADDRESS_MAX).unwrap() + 1).for_each(|id| gate.end(id));
        assert_eq!((gate.len(), gate.by_address.len()), (0, 0));
    }
}
