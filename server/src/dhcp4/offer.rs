//! Core: what another server's offer or acknowledgement says, for those who watch for other servers and for those who ask
//! for them. Touches the options of a packet.

use std::net::Ipv4Addr;

use common::limits::DHCP_RIVAL_FILE_BYTES_MAX;

use super::options::{HEADER, MAGIC, Options};

/// An offer or acknowledgement.
pub(super) struct Offer<'a> {
    /// The transaction that it answers, as it stands in the packet.
    pub(super) transaction: &'a [u8],
    /// The options.
    pub(super) options: Options,
    /// The address that it names as the server's (option 54), else the one that it came from.
    pub(super) server: Ipv4Addr,
    /// Whether it gives an address.
    pub(super) addresses: bool,
    /// The boot file that it names, printable; in option 67, or in the header where that has no options (option 52).
    pub(super) file: Option<String>,
}

impl<'a> Offer<'a> {
    /// The offer in a DHCP packet from `source`; `None` if it is another message: a refusal gives nothing.
    pub(super) fn of(packet: &'a [u8], source: Ipv4Addr) -> Option<Self> {
        let header = packet.get(..HEADER).filter(|header| header[0] == 2 && header[HEADER - 4..] == MAGIC)?;
        let options = Options::of(packet);
        if !matches!(options.get(53), [2 | 5]) {
            return None;
        }
        let server = <[u8; 4]>::try_from(options.get(54)).map_or(source, Ipv4Addr::from);
        let overloaded = options.get(52).first().is_some_and(|value| value & 1 != 0);
        let field = if overloaded { &[][..] } else { &header[108..236] };
        let file = [options.get(67), field].into_iter().map(printable).find(|file| !file.is_empty());
        let addresses = header[16..20] != [0; 4];
        Some(Self { transaction: &header[4..8], options, server, addresses, file })
    }
}

fn printable(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    name[..name.len().min(DHCP_RIVAL_FILE_BYTES_MAX)].escape_ascii().to_string()
}
