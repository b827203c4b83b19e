//! Core: the kernel's lists of sockets, `/proc/net/udp` and its like: who listens where. Touches nothing.

use std::net::Ipv4Addr;

/// A socket that waits for packets or connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// Its address; 0.0.0.0 for all, also where it waits on IPv6 for all.
    pub(super) address: Ipv4Addr,
    /// Its port.
    pub(super) port: u16,
    /// The number by which its process knows it.
    pub(super) inode: u64,
}

/// The state of a TCP socket that listens, and that of a UDP socket that is not connected.
const LISTENS: [&str; 2] = ["0A", "07"];

/// The listeners in a list; those of IPv6 only where they take IPv4 too.
pub(super) fn listeners(list: &str) -> Vec<Listener> {
    list.lines().skip(1).filter_map(listener).collect()
}

fn listener(line: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    if !LISTENS.contains(words.get(3)?) {
        return None;
    }
    let address = match address.len() {
        // Four bytes as this processor has a number of them.
        8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()),
        32 if address.bytes().all(|byte| byte == b'0') => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some(Listener { address, port: u16::from_str_radix(port, 16).ok()?, inode: words.get(9)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100000A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
            \x20  1: 00000000:1F85 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 0\n\
            \x20  2: 0100007F:9C40 0100007F:1F85 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 0\n\
            \x20  3: 00000000000000000000000000000000:0FA1 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4714 1\n\
            \x20  4: short\n";
        let found = listeners(list);
        let of = |address: [u8; 4], port, inode| Listener { address: address.into(), port, inode };
        assert_eq!(found, [of([10, 0, 0, 1], 69, 4711), of([0; 4], 8069, 4712), of([0; 4], 4001, 4714)]);
        assert_eq!(listeners(""), []);
    }
}
