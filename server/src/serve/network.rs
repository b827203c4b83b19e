//! What `status` says of the interface: machines are told the address that the server started with.

use crate::dhcp::{Drift, Place, drift};

/// What is wrong with the interface `name` by now, which had `place` when the server started.
pub(super) fn warning(name: &str, place: Place) -> Option<String> {
    words(name, place, &drift(name, place))
}

fn words(name: &str, had: Place, drift: &Drift) -> Option<String> {
    let Place { address, prefix } = had;
    match drift {
        Drift::None => None,
        Drift::Gone => Some(format!(
            "interface {name} is gone or has no address; machines are still told {address}/{prefix}: give it back"
        )),
        Drift::Changed(now) => Some(format!(
            "interface {name} is {}/{} by now, but machines are still told {address}/{prefix}: start the server again",
            now.address, now.prefix
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_that_was_changed_is_told() {
        let lo = Place { address: Ipv4Addr::LOCALHOST, prefix: 8 };
        assert_eq!(warning("lo", lo), None);
        let other = Place { address: Ipv4Addr::new(10, 0, 0, 1), prefix: 24 };
        let text = warning("lo", other).unwrap();
        assert!(text.contains("127.0.0.1/8") && text.contains("10.0.0.1/24"), "{text}");
        assert!(warning("lo", Place { prefix: 16, ..lo }).is_some());
        assert!(warning("no such thing", lo).unwrap().contains("gone"));
    }
}
