//! Core: remembers which DISCOVER asked for a network boot, for a REQUEST that does not say so. Touches nothing.
//!
//! Some firmware sends `PXEClient` in its DISCOVER only (raspberrypi/rpi-eeprom#82). The answer to its REQUEST must
//! have what the offer had: a transaction that began as a network boot stays one.

use std::collections::HashMap;

use common::limits::{DHCP_TRANSACTION_SECONDS, DHCP_TRANSACTIONS_MAX};

use super::request::{Ask, BootRequest, Client};

/// Identifies a transaction: the hardware address, the client identifier, and the transaction id.
type Key = ([u8; 16], Vec<u8>, u32);

/// The transactions of the last one to two periods of [`DHCP_TRANSACTION_SECONDS`].
#[derive(Debug, Default)]
pub(super) struct Transactions {
    young: HashMap<Key, (Client, Vec<u16>)>,
    old: HashMap<Key, (Client, Vec<u16>)>,
    since: u64,
}

impl Transactions {
    /// Remembers a DISCOVER for a network boot; completes a REQUEST that does not say what its client is.
    pub(super) fn heed(&mut self, request: &mut BootRequest, now: u64) {
        if now.saturating_sub(self.since) >= DHCP_TRANSACTION_SECONDS
            || self.young.len() >= DHCP_TRANSACTIONS_MAX
        {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let key = (request.chaddr, request.client_id.clone(), request.xid);
        match request.ask {
            Ask::Discover if request.client.netboots() => {
                self.young.insert(key, (request.client, request.architectures.clone()));
            }
            Ask::Discover => {
                self.young.remove(&key);
                self.old.remove(&key);
            }
            Ask::Request
                if request.vendor_class.is_empty() && !matches!(request.client, Client::Ipxe { .. }) =>
            {
                if let Some((client, architectures)) = self.young.get(&key).or_else(|| self.old.get(&key)) {
                    request.client = *client;
                    request.architectures.clone_from(architectures);
                }
            }
            Ask::Request | Ask::Decline | Ask::Release | Ask::Inform => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp4::testing::Packet;

    fn heed(transactions: &mut Transactions, packet: &Packet, now: u64) -> (Client, Vec<u16>) {
        let mut request = packet.request();
        transactions.heed(&mut request, now);
        (request.client, request.architectures)
    }

    #[test]
    fn a_transaction_that_began_as_a_network_boot_stays_one() {
        let mut transactions = Transactions::default();
        heed(&mut transactions, &Packet::pxe(7), 0);
        heed(&mut transactions, &Packet::http(16).mac(2), 0);
        let bare = Packet::new(3);
        assert_eq!(heed(&mut transactions, &bare, 59), (Client::Pxe, vec![7]));
        assert_eq!(heed(&mut transactions, &bare.clone().mac(2), 1), (Client::HttpBoot, vec![16]));
        // Option 93 is still there, 60 is not.
        let marked = bare.clone().mac(2).option(93, &[0, 16]).option(94, &[1, 2, 1]);
        assert_eq!(heed(&mut transactions, &marked, 1), (Client::HttpBoot, vec![16]));
        assert_eq!(heed(&mut transactions, &bare.clone().mac(3), 1).0, Client::Ordinary, "another machine");
        let says = bare.clone().option(60, b"MSFT 5.0");
        assert_eq!(heed(&mut transactions, &says, 1).0, Client::Ordinary, "it says what it is");
        // The OS of the same machine, which happens to use the same transaction id.
        heed(&mut transactions, &Packet::new(1), 2);
        assert_eq!(heed(&mut transactions, &bare, 3).0, Client::Ordinary);
    }

    #[test]
    fn it_forgets_in_time_and_is_bounded() {
        let mut transactions = Transactions::default();
        heed(&mut transactions, &Packet::pxe(7), 0);
        heed(&mut transactions, &Packet::pxe(7).mac(2), 60);
        heed(&mut transactions, &Packet::pxe(7).mac(2), 120);
        assert_eq!(heed(&mut transactions, &Packet::new(3), 121).0, Client::Ordinary);
        for n in 0..20_000_u32 {
            heed(&mut transactions, &Packet::pxe(7).option(61, &n.to_be_bytes()), 121);
        }
        assert!(transactions.young.len() + transactions.old.len() <= 2 * DHCP_TRANSACTIONS_MAX);
    }
}
