//! The server's own status, for `status` of the command line. Touches the interface, whose address may have changed.

use jiff::Timestamp;

use super::bind::Bound;
use super::network;
use crate::api::shapes::ServerStatus;
use crate::config::{Addresses, Config};

/// The server's status, with its warnings found anew at each call. The fleet's own warnings are added in `wire.rs`.
pub(super) fn status(bound: &Bound) -> impl Fn() -> ServerStatus + use<> {
    let status = ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: bound.home.keys.public(),
        url: bound.url(),
        mode: mode_words(&bound.config),
        started: Timestamp::now(),
        warnings: vec![],
        api: bound.api.clone(),
        frozen: None,
        subscribers: vec![],
    };
    let (interface, discovery) = (bound.config.interface.clone(), bound.config.discovery);
    let (place, files, rivals) = (bound.interface.place(), bound.files, bound.doors.dhcp.rivals());
    let (stores, subscribers) = (bound.stores.clone(), bound.subscribers.handle());
    move || {
        let rivals: Vec<String> =
            rivals.borrow().iter().map(|other| network::rival(other, discovery)).collect();
        let warnings = stores
            .warnings()
            .into_iter()
            .chain(network::warning(&interface, place))
            .chain(rivals)
            .chain(files.warning())
            .chain(subscribers.warnings());
        let warnings = warnings.collect();
        ServerStatus { warnings, subscribers: subscribers.shown(), ..status.clone() }
    }
}

/// The DHCP mode, its range and the interface, as one line for people.
pub(super) fn mode_words(config: &Config) -> String {
    match config.addresses {
        Addresses::Proxy => format!("proxy-dhcp on {}", config.interface),
        Addresses::Range(first, last) => format!("dhcp {first}-{last} on {}", config.interface),
    }
}
