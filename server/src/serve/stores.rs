//! The stores that machines are served from, opened from the state folder: images, boot kits, bundles. Each module is
//! given the ones that it needs. Touches the state folder.

use std::net::SocketAddr;
use std::sync::Arc;

use super::home::Home;
use super::programs::Programs;
use crate::boot::{BootKits, BootSettings};
use crate::config::Config;
use crate::fault::Fault;
use crate::image::Images;
use crate::kit::Kits;
use crate::tailor::{Bundles, Loaders};

/// The stores of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The image store, from which the swarm reads chunks.
    pub images: Images,
    /// The boot kits, and which of them machines boot.
    pub kits: Arc<BootKits>,
    /// The agent bundles, which plans name by their hash.
    pub bundles: Arc<Bundles>,
}

impl Stores {
    /// Opens all of them; `http` is the address at which machines reach the server.
    pub(super) fn open(
        config: &Config,
        home: &Home,
        programs: &Programs,
        http: SocketAddr,
    ) -> Result<Self, Fault> {
        let images = Images::open(&home.dir).map_err(|error| {
            let fault = Fault::failed("cannot open the image store").because(&error);
            match error.hint() {
                Some(hint) => fault.hint(hint),
                None => fault,
            }
        })?;
        let kits = Kits::open(&home.dir)
            .map_err(|error| Fault::failed("cannot open the boot kits").because(&error))?;
        let bundles = Bundles::open(&home.dir, &programs.agent)
            .map_err(|error| Fault::failed("cannot open the bundles").because(&error))?;
        let settings =
            BootSettings { loader: programs.loader.clone(), http, prefer: config.uefi_program.clone() };
        let loaders = Loaders::open(&home.dir)
            .map_err(|error| Fault::failed("cannot open the loaders").because(&error))?;
        let bundles = Arc::new(bundles);
        let kits = BootKits::new(kits, settings, loaders, Arc::clone(&bundles));
        Ok(Self { images, kits: Arc::new(kits), bundles })
    }

    /// Cancels what reads or writes for long: adds, verifications, exports of images, imports of kits.
    pub(super) fn stop(&self) {
        self.images.stop();
        self.kits.store().stop();
    }

    /// What an admin should look at, each in one sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        if self.kits.kit().is_none() {
            warnings
                .push("there is no boot kit, so no machine can be booted: `swarmboot kit import`".to_owned());
        }
        if self.images.list().is_empty() {
            warnings.push("there is no image: `swarmboot image add NAME FILE`".to_owned());
        }
        warnings
    }
}
