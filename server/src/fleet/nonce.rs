//! Core: nonces for reports, against replays. The server gives one to every client that asks, and verifies it later
//! without having kept it: it is the time, and a keyed hash over it. A report with an old nonce, or one of another
//! start of the server, is a replay, whoever signed it. Touches nothing.

use jiff::Timestamp;

/// The key of the nonces. New at every start of the server.
#[derive(Clone)]
pub(super) struct Nonces([u8; 32]);

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}

impl Nonces {
    /// Nonces of the server with this secret, started at `now`.
    #[must_use]
    pub(super) fn new(secret: &[u8; 32], now: Timestamp) -> Self {
        let start = now.as_nanosecond().to_be_bytes();
        Self(blake3::derive_key("swarmboot 2026 report nonce 1", &[&secret[..], &start[..]].concat()))
    }

    /// A nonce given out at `now`.
    #[must_use]
    pub(super) fn give(&self, now: Timestamp) -> String {
        let millis = now.as_millisecond().to_be_bytes();
        let mark = blake3::keyed_hash(&self.0, &millis);
        format!("{}{}", hex::encode(millis), hex::encode(&mark.as_bytes()[..16]))
    }

    /// When `nonce` was given out; `None` if these nonces are not the ones it is of, or that time is after `now`.
    #[must_use]
    pub(super) fn given(&self, nonce: &str, now: Timestamp) -> Option<Timestamp> {
        let mut bytes = [0; 24];
        hex::decode_to_slice(nonce, &mut bytes).ok()?;
        let mut millis = [0; 8];
        millis.copy_from_slice(&bytes[..8]);
        let given = Timestamp::from_millisecond(i64::from_be_bytes(millis)).ok()?;
        // Compared as hashes, so that the timing reveals nothing about the right nonce.
        let right = blake3::hash(self.give(given).as_bytes()) == blake3::hash(nonce.as_bytes());
        (right && given <= now).then_some(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_known_again_and_nothing_else_is() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let nonces = Nonces::new(&[7; 32], at(0));
        let nonce = nonces.give(at(100));
        assert_eq!(nonces.given(&nonce, at(105)), Some(at(100)));
        assert_eq!(nonces.given(&nonce, at(99)), None, "the clock was set back");
        let mut later = nonce.clone();
        later.replace_range(15..16, "9");
        for other in ["", "00", &nonce.to_uppercase(), &later, &nonce[..46], &format!("{nonce}00")] {
            assert!(other == nonce || nonces.given(other, at(105)).is_none(), "{other}");
        }
        assert_eq!(Nonces::new(&[7; 32], at(1)).given(&nonce, at(105)), None, "of an earlier start");
        assert_eq!(Nonces::new(&[8; 32], at(0)).given(&nonce, at(105)), None, "of another server");
    }
}
