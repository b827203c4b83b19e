//! Core: warnings about an image before it is written to a machine: that the machine's firmware would not start it, or
//! that nothing in it would read hostname, keys and user-data. Touches `api` and `common`.

use common::hardware::Firmware;

use crate::api::shapes::{BiosBoot, CloudInit, ImageTraits, UefiBoot, Warning};

/// The warnings for an image with these `traits` on a machine with this firmware. With [`Firmware::None`] the agent
/// runs as an ordinary process, which boots nothing, so there are none.
#[must_use]
pub fn warnings(firmware: Firmware, traits: &ImageTraits, personalise: bool) -> Vec<Warning> {
    let boots = match firmware {
        Firmware::Bios if traits.bios != BiosBoot::Yes => {
            Some(Warning::NoBiosBoot { why: traits.bios.clone() })
        }
        Firmware::Uefi | Firmware::UefiSecure if traits.uefi != UefiBoot::Yes => {
            Some(Warning::NoUefiBoot { why: traits.uefi.clone() })
        }
        _ => None,
    };
    // No warning for a root file system that cannot be read: most images that are deployed have cloud-init.
    let known = !matches!(traits.cloud_init, CloudInit::Yes | CloudInit::Unknown);
    let silent = firmware != Firmware::None && personalise && known;
    boots.into_iter().chain(silent.then(|| Warning::NoCloudInit { why: traits.cloud_init.clone() })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_image_on_a_machine() {
        let traits = |bios: BiosBoot, uefi: UefiBoot, cloud_init: CloudInit| ImageTraits {
            looked: 1,
            bios,
            uefi,
            not_personalised: None,
            cloud_init,
            partitions: vec![],
        };
        let good = || traits(BiosBoot::Yes, UefiBoot::Yes, CloudInit::Yes);
        let no_loader = || UefiBoot::NoLoader { vendors: vec!["debian".to_owned()] };
        let uefi_only = || traits(BiosBoot::NoPlace, UefiBoot::Yes, CloudInit::Yes);
        let no_fallback = || traits(BiosBoot::Yes, no_loader(), CloudInit::Yes);
        let bare = || traits(BiosBoot::Yes, UefiBoot::Yes, CloudInit::No);
        let table = [
            (Firmware::Bios, good(), true, vec![]),
            (Firmware::Uefi, good(), true, vec![]),
            (Firmware::Bios, uefi_only(), true, vec![Warning::NoBiosBoot { why: BiosBoot::NoPlace }]),
            (Firmware::Uefi, uefi_only(), true, vec![]),
            (Firmware::Uefi, no_fallback(), true, vec![Warning::NoUefiBoot { why: no_loader() }]),
            (Firmware::UefiSecure, no_fallback(), false, vec![Warning::NoUefiBoot { why: no_loader() }]),
            (Firmware::Bios, no_fallback(), true, vec![]),
            (Firmware::Bios, bare(), true, vec![Warning::NoCloudInit { why: CloudInit::No }]),
            (Firmware::Bios, bare(), false, vec![]),
            (Firmware::None, traits(BiosBoot::NoCode, no_loader(), CloudInit::No), true, vec![]),
        ];
        for (firmware, traits, personalise, wanted) in table {
            assert_eq!(warnings(firmware, &traits, personalise), wanted, "{firmware:?} {traits:?}");
        }
        let said = Warning::NoUefiBoot { why: no_loader() }.to_string();
        assert!(said.contains("EFI/BOOT/BOOTX64.EFI, only EFI/debian"), "{said}");
        let shown = serde_json::to_value(Warning::NoUefiBoot { why: no_loader() }).unwrap();
        let wanted = serde_json::json!({
            "warning": "no-uefi-boot", "why": {"boots": "no-loader", "vendors": ["debian"]},
        });
        assert_eq!(shown, wanted);
    }
}
