//! What the server has in stock: images, boot kits and bundles, behind the seams through which the fleet, the
//! doors and the swarm ask for them. Decides nothing; joins the rooms. Touches the image store, the kits, the
//! bundles, and the swarm's handle.

// What fails only because something is short is tried again.
mod scarce;

// The admin's way to the boot kits.
mod kits;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use common::causes::with_causes;
use common::chunk::ChunkIndex;
use common::hardware::{CheckedHardware, Firmware};
use common::id::{Hash, ImageId};
use common::manifest::Manifest;
use common::plan::Seed;
use common::trust::PublicKey;
use common::wire::http::Refused;
use common::wire::swarm::Form;
use tokio::sync::watch;

use crate::api::shapes::{ImageShown, Warning};
use crate::boot::choose::Programs;
use crate::boot::tftp::Files;
use crate::boot::{AUTOEXEC, script};
use crate::fleet::provisioner::{Admission, PlanRequest, Provision, Provisioner, Soon, Target};
use crate::http::content::{Bytestore, Content};
use crate::http::{BootSource, image_refused, image_shown};
use crate::image::Images;
use crate::kit::{BootFiles, Kits};
use crate::swarm::{self, ChunkSource, SwarmHandle};
use crate::tailor::{self, Bundles, ImageFacts, Request, TargetRule};

/// What machines are booted with at this moment; another value when a kit is imported or removed.
#[derive(Debug, Clone, Default)]
struct Booting {
    kit: Option<String>,
    files: Files,
    /// What there is of every kit: machines that began with another one still fetch of that.
    kits: Arc<BTreeMap<String, BootFiles>>,
}

/// Everything in stock. One for the whole server.
#[derive(Debug)]
pub struct Stock {
    images: Images,
    kits: Kits,
    bundles: Bundles,
    loader: PathBuf,
    http: std::net::SocketAddr,
    key: PublicKey,
    prefer: Option<String>,
    booting: watch::Sender<Booting>,
    programs: watch::Sender<Programs>,
    files: watch::Sender<Files>,
    swarm: OnceLock<SwarmHandle>,
}

/// What stock is made of.
#[derive(Debug)]
pub struct Parts {
    /// The image store.
    pub images: Images,
    /// The boot kits.
    pub kits: Kits,
    /// The bundles.
    pub bundles: Bundles,
    /// The `swarmboot-loader` program, for kits.
    pub loader: PathBuf,
    /// Where machines reach us over HTTP.
    pub http: std::net::SocketAddr,
    /// The server's key.
    pub key: PublicKey,
    /// The network boot program an admin prefers.
    pub prefer: Option<String>,
}

impl Stock {
    /// Stock out of its parts; nothing is read yet but what the parts have read.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { images, kits, bundles, loader, http, key, prefer } = parts;
        Self {
            images,
            kits,
            bundles,
            loader,
            http,
            key,
            prefer,
            booting: watch::Sender::default(),
            programs: watch::Sender::default(),
            files: watch::Sender::default(),
            swarm: OnceLock::new(),
        }
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Ends what reads or writes for long: adds, verifications, exports of images, imports of kits.
    pub fn stop(&self) {
        self.images.stop();
        self.kits.stop();
    }

    /// The names of the boot programs that there are, for DHCP.
    #[must_use]
    pub fn programs(&self) -> watch::Receiver<Programs> {
        self.programs.subscribe()
    }

    /// The boot programs themselves, for TFTP.
    #[must_use]
    pub fn files(&self) -> watch::Receiver<Files> {
        self.files.subscribe()
    }

    /// The swarm, which is bound after the stock it serves from. Only the first call counts.
    pub fn join(&self, swarm: SwarmHandle) {
        let _ = self.swarm.set(swarm);
    }

    /// Reads the default kit's boot programs into memory and tells the doors. Blocking.
    fn kits_changed(&self) {
        let booting =
            match self.kits.default_kit().and_then(|kit| Ok((kit.name().to_owned(), kit.boot_programs()?))) {
                Ok((kit, programs)) => {
                    let mut files: HashMap<String, Bytes> =
                        programs.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes))).collect();
                    // iPXE that cannot be given a script by DHCP (the signed one) looks for this beside itself.
                    files.insert(AUTOEXEC.to_owned(), Bytes::from(script::entry(self.http)));
                    Booting { kit: Some(kit), files: Arc::new(files), kits: Arc::default() }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "machines cannot be booted: no boot kit"
                    );
                    Booting::default()
                }
            };
        let kits = Arc::new(self.kits.boot_files().unwrap_or_default());
        let booting = Booting { kits, ..booting };
        let names = booting.files.keys().filter(|name| *name != AUTOEXEC).cloned();
        self.programs.send_replace(Programs::new(names, self.prefer.clone()));
        self.files.send_replace(Arc::clone(&booting.files));
        self.booting.send_replace(booting);
    }

    /// Makes ready what machines are booted with: puts this server's loader into kits that were made with
    /// another version of it, and tells the doors what there is. Blocking.
    pub fn prepare(&self) {
        for kit in self.kits.list().unwrap_or_default() {
            match self.kits.refresh_loader(&kit.name, &self.loader) {
                Ok(true) => tracing::info!(kit = kit.name, "the kit got this version's loader"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        kit = kit.name,
                        error = &error as &dyn std::error::Error,
                        "the kit keeps its old loader"
                    );
                }
            }
        }
        self.kits_changed();
    }

    /// What an admin should look at, each in one sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        if self.booting.borrow().kit.is_none() {
            warnings
                .push("there is no boot kit, so no machine can be booted: `swarmboot kit import`".to_owned());
        }
        if self.images.list().is_empty() {
            warnings.push("there is no image: `swarmboot image add NAME FILE`".to_owned());
        }
        warnings
    }

    fn request(&self, request: &PlanRequest) -> Result<Request, String> {
        let manifest = self.images.manifest(request.image).map_err(|error| with_causes(&error))?;
        let info = self.images.get(&request.image.to_string()).map_err(|error| with_causes(&error))?;
        let target: TargetRule = request.disk.parse().map_err(|error| with_causes(&error))?;
        Ok(Request {
            deployment: request.deployment,
            job: request.job,
            attempt: request.attempt,
            image: ImageFacts {
                id: request.image,
                size: manifest.size(),
                sector_bytes: manifest.sector_bytes(),
                wire_bytes: info.wire_bytes,
                first: self.images.first_bytes(request.image).map_err(|error| with_causes(&error))?,
            },
            target,
            bound: request.bound.clone(),
            gather: request.gather,
            personalise: request.personalise,
            finish: request.finish,
            seed: self.seed(request.server),
        })
    }

    /// What an admin should know before `plan` is carried out on `hardware`. Nothing of an image whose chunks cannot be
    /// read, which the transfer tells.
    fn warnings_of(
        &self,
        request: &PlanRequest,
        hardware: &CheckedHardware,
        plan: &common::plan::Plan,
    ) -> Vec<Warning> {
        let traits = self.images.traits(request.image).ok();
        let report = hardware.report();
        let partitions = traits.as_ref().map(|traits| traits.partitions.as_slice()).unwrap_or_default();
        let mut warnings = tailor::neighbours(report, &plan.target, partitions);
        let fit = |traits| tailor::warnings(report.firmware, traits, request.personalise);
        warnings.extend(traits.as_ref().map(fit).unwrap_or_default());
        warnings
    }

    /// The swarm's first seed as a machine sees it: at the address that the machine reported to.
    fn seed(&self, reached: Option<IpAddr>) -> Seed {
        let listening = self.swarm.get().map(SwarmHandle::addresses).unwrap_or_default();
        let addresses = match reached {
            Some(ip) => listening.iter().map(|address| at(address, ip)).collect(),
            None => listening.to_vec(),
        };
        Seed { key: self.key, addresses }
    }
}

/// The multiaddr `address` with its IP address replaced by `ip`.
fn at(address: &str, ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    let rest: Vec<&str> = address.split('/').skip(3).collect();
    format!("/{family}/{ip}/{}", rest.join("/"))
}

impl Provisioner for Stock {
    fn image(&self, name: &str) -> Result<ImageShown, Refused> {
        self.images.get(name).map(|info| image_shown(&info)).map_err(|error| image_refused(&error))
    }

    fn check_disk_rule(&self, rule: &str) -> Result<(), String> {
        rule.parse::<TargetRule>().map(drop).map_err(|error| with_causes(&error))
    }

    fn target(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, String> {
        let plan = tailor::plan(hardware, &self.request(request)?).map_err(|refusal| said(&refusal))?;
        let words = target_words(hardware, &plan);
        let warnings = self.warnings_of(request, hardware, &plan);
        Ok(Target { disk: plan.target, words, warnings })
    }

    fn tailor(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Provision, String> {
        let wanted = self.request(request)?;
        let mut plan = tailor::plan(hardware, &wanted).map_err(|refusal| said(&refusal))?;
        // An agent that runs as an ordinary process has its drivers.
        if hardware.report().firmware != Firmware::None {
            let kit = self.kits.default_kit().map_err(|error| with_causes(&error))?;
            let needs = tailor::needs(hardware, kit.modules(), kit.firmware());
            plan.bundle = Some(self.bundles.get_or_build(&kit, &needs).map_err(|error| with_causes(&error))?);
        }
        let target = target_words(hardware, &plan);
        let warnings = self.warnings_of(request, hardware, &plan);
        Ok(Provision { plan, target, warnings, notes: vec![] })
    }

    fn admit(&self, admission: Admission) -> Soon<'_, ()> {
        Box::pin(async move {
            let Some(swarm) = self.swarm.get() else { return };
            let admission = swarm::Admission {
                key: admission.key,
                deployment: admission.deployment,
                job: admission.job,
                image: admission.image,
                name: admission.name,
                site: admission.site,
                personality: admission.personality,
                gather: admission
                    .gate
                    .map(|gate| swarm::Gather { wanted: gate.machines, seconds: gate.seconds }),
            };
            if swarm.admit(admission).await.is_err() {
                tracing::warn!("a machine could not be let into the swarm: it is stopping");
            }
        })
    }

    fn is_here(&self, key: PublicKey) -> Soon<'_, bool> {
        Box::pin(async move {
            let Some(swarm) = self.swarm.get() else { return true };
            // Of a swarm that is stopping nothing can be told.
            swarm.is_here(key).await.unwrap_or(true)
        })
    }

    fn dismiss(&self, key: PublicKey, reason: Option<String>) -> Soon<'_, ()> {
        Box::pin(async move {
            let Some(swarm) = self.swarm.get() else { return };
            // A swarm that is stopping lets nobody in anyway.
            let _ = swarm.expel(key, reason).await;
        })
    }
}

fn said(refusal: &tailor::Refusal) -> String {
    format!("{refusal} ({})", refusal.hint())
}

fn target_words(hardware: &CheckedHardware, plan: &common::plan::Plan) -> String {
    let disks = &hardware.report().disks;
    let Some(disk) = disks.iter().find(|disk| plan.target.matches(disk)) else { return String::new() };
    let marks = [disk.model.as_str(), disk.serial.as_str()].join(" ");
    let holds =
        if disk.found.is_empty() { String::new() } else { format!(", holds {}", disk.found.join(", ")) };
    format!("{} {} {}{holds}", disk.name, common::text::bytes(disk.size), marks.trim())
}

impl BootSource for Stock {
    fn kit(&self) -> Option<String> {
        self.booting.borrow().kit.clone()
    }

    fn kit_file(&self, kit: &str, file: &str) -> Option<Content> {
        let kits = Arc::clone(&self.booting.borrow().kits);
        let kit = kits.get(kit)?;
        let (path, mark) = match file {
            "vmlinuz" => kit.kernel.clone(),
            "loader.img" => kit.loader.clone(),
            _ => return None,
        };
        let tag = mark.map(|mark| mark.blake3.to_string());
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag })
    }

    fn boot_program(&self, file: &str) -> Option<Bytes> {
        self.booting.borrow().files.get(file).cloned()
    }

    fn bundle(&self, hash: Hash) -> Option<Content> {
        let path = self.bundles.path(hash)?;
        let tag = Some(hash.to_string());
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag })
    }

    fn manifest(&self, image: ImageId) -> Option<Bytes> {
        self.images.manifest_bytes(image).ok()
    }
}

impl ChunkSource for Stock {
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        self.images.manifest(image).ok()
    }

    fn wire_chunk(&self, image: ImageId, chunk: ChunkIndex) -> std::io::Result<Vec<u8>> {
        let manifest = self.images.manifest(image).map_err(std::io::Error::other)?;
        let stored = manifest.stored(chunk).ok_or(std::io::ErrorKind::NotFound)?;
        scarce::patiently(|| self.images.wire_chunk(&stored)).map(Vec::from)
    }

    fn mend(&self, image: ImageId, chunk: ChunkIndex) -> std::io::Result<()> {
        self.images.mend(image, chunk).map_err(std::io::Error::other)
    }

    fn mend_with(
        &self,
        image: ImageId,
        chunk: ChunkIndex,
        form: Form,
        bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        self.images.mend_with(image, chunk, form, bytes).map_err(std::io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_given_without_reading_the_kits_index_again() {
        let bench = crate::kit::tests::Bench::imported();
        let program = bench.dir.path().join("loader");
        let stock = Stock::new(Parts {
            images: Images::open(bench.dir.path()).unwrap(),
            kits: bench.kits.clone(),
            bundles: Bundles::open(bench.dir.path(), &program).unwrap(),
            loader: program,
            http: ([127, 0, 0, 1], 0).into(),
            key: common::trust::KeyPair::from_secret([7; 32]).public(),
            prefer: None,
        });
        stock.prepare();
        let kit = stock.kit().unwrap();
        for index in ["kit.json", "modules.json"] {
            std::fs::write(bench.dir.path().join("kits").join(&kit).join(index), "").unwrap();
        }
        assert!(stock.kit_file(&kit, "vmlinuz").is_some() && stock.kit_file(&kit, "loader.img").is_some());
        assert!(stock.kit_file("another", "vmlinuz").is_none());
    }

    #[test]
    fn a_seed_is_where_the_machine_reached_us() {
        assert_eq!(at("/ip4/0.0.0.0/tcp/4001", [10, 0, 0, 1].into()), "/ip4/10.0.0.1/tcp/4001");
        assert_eq!(at("/ip4/127.0.0.1/tcp/9", "fe80::1".parse().unwrap()), "/ip6/fe80::1/tcp/9");
    }
}
