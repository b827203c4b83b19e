//! Core: finds and joins the options of a DHCP packet. Touches nothing.
//!
//! Options are parsed by hand, not by dhcproto: one malformed option makes its decoder silently drop all later ones, a
//! second architecture in option 93 is lost, some wrong lengths are a `debug_assert`, and an hlen above 16 panics when
//! the address is asked for (all tried with 0.15.0). Firmware sends such packets.

/// The BOOTP header and the magic cookie (RFC 2131 section 2).
pub(super) const HEADER: usize = 240;
pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// The options of a packet; those of one code are joined in the order of their appearance (RFC 3396), also from `file`
/// and `sname` when option 52 says so.
pub(super) struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Parses the options of a packet that is at least [`HEADER`] bytes long.
    pub(super) fn of(packet: &[u8]) -> Self {
        let mut options = Self(Vec::new());
        options.add(&packet[HEADER..]);
        let overload = options.get(52).first().copied().unwrap_or(0);
        if overload & 1 != 0 {
            options.add(&packet[108..236]);
        }
        if overload & 2 != 0 {
            options.add(&packet[44..108]);
        }
        options
    }

    fn add(&mut self, bytes: &[u8]) {
        walk(bytes, |code, value| match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, joined)) => joined.extend_from_slice(value),
            None => self.0.push((code, value.to_vec())),
        });
    }

    /// The option's bytes; empty when it is absent.
    pub(super) fn get(&self, code: u8) -> &[u8] {
        self.0.iter().find(|(known, _)| *known == code).map_or(&[], |(_, value)| value)
    }
}

/// Calls `each` with every option of a code-length-value list, until its end or the first that is cut short.
pub(super) fn walk(mut bytes: &[u8], mut each: impl FnMut(u8, &[u8])) {
    loop {
        match bytes {
            [0, rest @ ..] => bytes = rest,
            [255, ..] | [] | [_] => return,
            [code, length, rest @ ..] => {
                let Some((value, after)) = rest.split_at_checked(usize::from(*length)) else { return };
                each(*code, value);
                bytes = after;
            }
        }
    }
}
