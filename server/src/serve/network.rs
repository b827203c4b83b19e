//! Warnings of `status` about the network: an interface that changed (machines are told the address that the server
//! started with), and other DHCP servers on it. Touches the interface.

use crate::dhcp4::{Drift, Place, Rival, drift};

/// What is wrong with the interface `name` by now, which had `place` when the server started; `None` when nothing is.
pub(super) fn warning(name: &str, place: Place) -> Option<String> {
    words(name, place, &drift(name, place))
}

/// Names another DHCP server on this network, with what it does and what to do about it.
pub(super) fn rival(rival: &Rival, discovery: bool) -> String {
    let Rival { address, addresses, boots } = rival;
    let does = match (addresses, boots) {
        (true, Some(file)) => format!("gives addresses and boots machines ({file})"),
        (true, None) => "gives addresses".to_owned(),
        (false, Some(file)) => format!("boots machines ({file})"),
        (false, None) => "answers".to_owned(),
    };
    let cure = match (boots.is_some(), discovery) {
        (true, true) => {
            "; machines that are its own may be taken from it: stop one of the two, or use --no-discovery"
        }
        (true, false) => "; a machine of ours may be taken by it: stop one of the two",
        (false, _) => ", and so does this one: stop one of the two, or leave addresses to it (--proxy-dhcp)",
    };
    format!("another server on this network, {address}, {does}{cure}")
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
    fn another_server_is_named_with_what_to_do() {
        let address = Ipv4Addr::new(10, 0, 0, 66);
        let dhcp = Rival { address, addresses: true, boots: None };
        assert!(rival(&dhcp, true).contains("10.0.0.66, gives addresses, and so does this one"));
        let pxe = Rival { address, addresses: false, boots: Some("pxelinux.0".to_owned()) };
        assert!(rival(&pxe, true).contains("pxelinux.0") && rival(&pxe, true).contains("--no-discovery"));
        assert!(!rival(&pxe, false).contains("--no-discovery"));
    }

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
