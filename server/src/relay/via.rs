//! Signs the header with which the server believes whom a request is passed on for. Owns the count of those headers;
//! touches a mutex only.

use axum::http::HeaderValue;
use common::trust::KeyPair;
use common::wire::relay::Via;
use parking_lot::Mutex;

use crate::http::Ends;

/// The relay's pen for the header.
#[derive(Debug)]
pub(super) struct ViaSigner {
    keys: KeyPair,
    /// The server's last nonce, none before its first answer; and how many headers were signed by this process.
    state: Mutex<(Option<String>, u64)>,
}

impl ViaSigner {
    pub(super) fn new(keys: KeyPair) -> Self {
        Self { keys, state: Mutex::default() }
    }

    /// Takes a new nonce of the server.
    pub(super) fn renew(&self, nonce: String) {
        self.state.lock().0 = Some(nonce);
    }

    /// The header for the request `method target` of a machine; none before the server's first answer.
    pub(super) fn header(&self, ends: Ends, method: &str, target: &str) -> Option<HeaderValue> {
        let (nonce, count) = {
            let mut state = self.state.lock();
            let nonce = state.0.clone()?;
            state.1 += 1;
            (nonce, state.1)
        };
        let via = Via {
            relay: self.keys.public(),
            machine: ends.peer.ip(),
            local: ends.local,
            nonce,
            count,
            request: Via::request(method, target),
        };
        HeaderValue::from_str(&serde_json::to_string(&self.keys.sign(&via)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use common::trust::Signed;

    use super::*;

    #[test]
    fn each_request_has_a_number_of_its_own() {
        let keys = KeyPair::from_secret([9; 32]);
        let signer = ViaSigner::new(keys.clone());
        let ends = Ends {
            peer: SocketAddr::from(([10, 2, 0, 7], 1024)),
            local: SocketAddr::from(([10, 2, 0, 1], 8069)),
            own: SocketAddr::from(([10, 2, 0, 1], 8069)),
        };
        assert_eq!(signer.header(ends, "GET", "/boot.ipxe"), None, "there is no nonce yet");
        let mut seen = vec![];
        for nonce in ["a", "a", "b"] {
            if seen.last().is_none_or(|(last, _)| last != nonce) {
                signer.renew(nonce.to_owned());
            }
            let header = signer.header(ends, "GET", "/boot.ipxe?mac=a").unwrap();
            let signed: Signed<Via> = serde_json::from_slice(header.as_bytes()).unwrap();
            let via = signed.open(&keys.public()).unwrap();
            assert_eq!((via.machine, via.local), (ends.peer.ip(), ends.local));
            assert_eq!(via.request, Via::request("GET", "/boot.ipxe?mac=a"));
            seen.push((via.nonce, via.count));
        }
        assert_eq!(seen, [("a".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 3)]);
    }
}
