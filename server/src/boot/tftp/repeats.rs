//! Core: which of async-tftp's packets are repetitions that the line itself has caused. It repeats a window that is not
//! acknowledged for a quarter of a second; where the packets wait longer than that for their turn on a thin line, each
//! of them would be sent several times, and the line would be thinner still. Touches nothing; times are milliseconds of
//! a monotonic clock.

use common::limits::TFTP_WINDOW_MAX;

/// A repetition that comes so soon after the last packet was sent was made while that one waited: async-tftp itself
/// waits for 250 ms.
const TOO_SOON_MS: u64 = 200;

/// The opcodes of packets with a number, or that come once (RFC 1350, RFC 2347).
const DATA: u8 = 3;
const OACK: u8 = 6;

/// The packets that were sent since the machine's last acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    sent: Vec<[u8; 3]>,
    last_ms: u64,
}

impl Repeats {
    /// Whether `packet` need not be sent: it was, a moment ago, and the machine has not answered yet.
    pub(super) fn knows(&self, packet: &[u8], now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ms) < TOO_SOON_MS
            && name(packet).is_some_and(|name| self.sent.contains(&name))
    }

    /// Notes that `packet` was sent.
    pub(super) fn sent(&mut self, packet: &[u8], now_ms: u64) {
        self.last_ms = now_ms;
        let Some(name) = name(packet) else { return };
        if self.sent.len() >= usize::from(TFTP_WINDOW_MAX) {
            self.sent.remove(0);
        }
        self.sent.push(name);
    }

    /// Notes an acknowledgement: what async-tftp sends after it, it sends because of it, also a block again.
    pub(super) fn acknowledged(&mut self) {
        self.sent.clear();
    }
}

/// The opcode and block number of a packet that may be repeated.
fn name(packet: &[u8]) -> Option<[u8; 3]> {
    match *packet {
        [0, DATA, high, low, ..] => Some([DATA, high, low]),
        [0, OACK, ..] => Some([OACK, 0, 0]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_is_sent_once_and_what_was_lost_again() {
        let data = |block: u8| vec![0, DATA, 0, block, 9, 9];
        let mut repeats = Repeats::default();
        // A window of four that took two seconds to leave; async-tftp has repeated it seven times meanwhile.
        for block in 1..=4 {
            assert!(!repeats.knows(&data(block), 500 * u64::from(block)));
            repeats.sent(&data(block), 500 * u64::from(block));
        }
        assert!((1..=4).all(|block| repeats.knows(&data(block), 2001)));
        // Nothing was heard of the machine: this one was made because of that.
        assert!(!repeats.knows(&data(1), 2250));
        repeats.sent(&data(1), 2250);
        // The machine lost the third: it acknowledges the second, and gets the third at once.
        repeats.acknowledged();
        assert!(!repeats.knows(&data(3), 2251));
        assert!(!repeats.knows(&[0, 5, 0, 0, 0], 2251), "an error is never left out");
    }
}
