//! Lists physical network interfaces. Touches `/sys/class/net` under the root it is given.

use std::path::Path;

use common::hardware::Nic;
use common::id::Mac;

use super::files::{link_name, names_in, number, text, tidy};

/// `ARPHRD_ETHER`: the content of `type` for an Ethernet interface.
const ETHERNET: u64 = 1;

/// The names and addresses of the interfaces that a cable can be plugged into: a device of their own (so no
/// bridge, bond or loopback), Ethernet (so no InfiniBand), and no radio, which would need a key first.
#[must_use]
pub fn physical(root: &Path) -> Vec<(String, Mac)> {
    let class = root.join("sys/class/net");
    let usable = |name: String| {
        let dir = class.join(&name);
        let radio = dir.join("phy80211").exists() || dir.join("wireless").exists();
        let mac: Mac = text(&dir.join("address")).parse().ok()?;
        let real = dir.join("device").exists() && number(&dir.join("type")) == Some(ETHERNET);
        (real && !radio && mac != Mac([0; 6])).then_some((name, mac))
    };
    names_in(&class).into_iter().filter_map(usable).collect()
}

/// The physical interfaces: the one with `boot_mac` is marked as the one that the machine booted from, and the one that
/// `address` names gets that IP address.
#[must_use]
pub fn list(root: &Path, boot_mac: Option<Mac>, address: Option<&(String, String)>) -> Vec<Nic> {
    let class = root.join("sys/class/net");
    let describe = |(name, mac): (String, Mac)| {
        let dir = class.join(&name);
        let address = address.filter(|(on, _)| *on == name).map(|(_, address)| address.clone());
        Nic {
            driver: link_name(&dir.join("device/driver")),
            // Drivers that do not know the speed say -1 or nothing.
            speed_mbit: number(&dir.join("speed"))
                .and_then(|speed| u32::try_from(speed).ok())
                .filter(|&s| s > 0),
            link: number(&dir.join("carrier")) == Some(1),
            address,
            boot: boot_mac == Some(mac),
            usb: link_name(&dir.join("device/subsystem")) == "usb",
            name: tidy(&name),
            mac,
        }
    };
    physical(root).into_iter().map(describe).collect()
}
