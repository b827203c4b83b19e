//! Provides what the fleet needs from other modules: plans from the tailor, images from their store, modules from the
//! default kit, bundles, the neighbours that may have them, and the admission of machines to the swarm. Decides nothing.
//! Touches those modules; blocks, except for requests to the swarm.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use common::hardware::{CheckedHardware, Firmware};
use common::id::Hash;
use common::plan::{Plan, Seed};
use common::trust::PublicKey;
use common::wire::http::Refused;
use common::wire::objects::Object;

use crate::api::shapes::{ImageShown, Warning};
use crate::api::{image_refused, image_shown};
use crate::boot::BootKits;
use crate::fleet::provisioner::{NoPlan, PlanRequest, Provision, Provisioner, Soon, Target};
use crate::image::Images;
use crate::peers::{Peers, Who};
use crate::swarm::{Admission, SwarmHandle};
use crate::tailor::{self, Bundles, ImageFacts, Needs, Request, booted_from};

/// The fleet's provisioner. One for the whole server, created when the swarm is bound.
#[derive(Debug)]
pub struct Provisioning {
    /// The image store.
    pub images: Images,
    /// The boot kits; the default one has the modules of bundles, and of small loaders.
    pub kits: Arc<BootKits>,
    /// The agent bundles, built when the first plan needs them.
    pub bundles: Arc<Bundles>,
    /// The swarm that machines are admitted to.
    pub swarm: SwarmHandle,
    /// The server's public key, by which agents recognise the first seed.
    pub key: PublicKey,
    /// Which machines of a site may give bundle and manifest to others.
    pub peers: Peers,
}

impl Provisioning {
    fn request(&self, request: &PlanRequest) -> Result<Request, NoPlan> {
        let manifest = self.images.manifest(request.image).map_err(NoPlan::failed)?;
        let info = self.images.get(&request.image.to_string()).map_err(NoPlan::failed)?;
        Ok(Request {
            deployment: request.deployment,
            job: request.job,
            attempt: request.attempt,
            image: ImageFacts {
                id: request.image,
                size: manifest.size(),
                sector_bytes: manifest.sector_bytes(),
                wire_bytes: info.wire_bytes,
                deltas: self.images.delta_table(request.image).map(|(_, hash)| hash),
                first: self.images.first_bytes(request.image).map_err(NoPlan::failed)?,
            },
            target: request.disk.clone(),
            bound: request.bound.clone(),
            gather: request.gather,
            personalise: request.personalise,
            hooks: request.hooks.clone(),
            finish: request.finish,
            seed: self.seed(request.server),
        })
    }

    /// The bundle for `hardware`, built if it was not built before; none for an agent that runs as an ordinary process,
    /// which has its drivers already.
    fn bundle(&self, hardware: &CheckedHardware, root: Option<&str>) -> Result<Option<(Hash, u64)>, NoPlan> {
        if hardware.report().firmware == Firmware::None {
            return Ok(None);
        }
        let kit = self.kits.store().default_kit().map_err(NoPlan::failed)?;
        // A loader of this kit has loaded every driver that the machine needs, or will.
        let has_them = hardware.report().drivers.is_some_and(|index| kit.drivers() == Some(index));
        let mut needs =
            if has_them { Needs::default() } else { tailor::needs(hardware, kit.modules(), kit.firmware()) };
        if let Some(file_system) = root {
            let lacks = |name| refused(tailor::Refusal::NoModule(name));
            needs.add_for_hooks(kit.modules(), file_system).map_err(lacks)?;
        }
        self.bundles.get_or_build(&kit, &needs).map(Some).map_err(NoPlan::failed)
    }

    /// The file system of the root that the hooks of `request` run in; `None` without hooks. Refused where the image has no
    /// root, or the kit cannot mount it: before anything is written.
    fn root(
        &self,
        request: &PlanRequest,
        hardware: &CheckedHardware,
    ) -> Result<Option<&'static str>, NoPlan> {
        let Some(rule) = &request.hooks else { return Ok(None) };
        let traits = self.images.traits(request.image).map_err(NoPlan::failed)?;
        let manifest = self.images.manifest(request.image).map_err(NoPlan::failed)?;
        let first = self.images.first_bytes(request.image).map_err(NoPlan::failed)?;
        let found = tailor::root(&first, manifest.sector_bytes(), &traits.partitions, rule);
        let file_system = found.map_err(refused)?;
        if hardware.report().firmware != Firmware::None {
            let kit = self.kits.store().default_kit().map_err(NoPlan::failed)?;
            let lacks = |name| refused(tailor::Refusal::NoModule(name));
            Needs::default().add_for_hooks(kit.modules(), file_system).map_err(lacks)?;
        }
        Ok(Some(file_system))
    }

    /// What an admin should know before `plan` is carried out on `hardware`. If the image's chunks cannot be read,
    /// there are no warnings about it: the transfer will report that.
    fn warnings_of(&self, request: &PlanRequest, hardware: &CheckedHardware, plan: &Plan) -> Vec<Warning> {
        let traits = self.images.traits(request.image).ok();
        let report = hardware.report();
        let partitions = traits.as_ref().map(|traits| traits.partitions.as_slice()).unwrap_or_default();
        let mut warnings = tailor::neighbours(report, &plan.target, partitions);
        let fit = |traits| tailor::warnings(report.firmware, traits, request.personalise);
        warnings.extend(traits.as_ref().map(fit).unwrap_or_default());
        warnings
    }

    /// Neighbours of the machine that may have its bundle or its manifest.
    fn neighbours(&self, request: &PlanRequest, hardware: &CheckedHardware, plan: &Plan) -> Vec<SocketAddr> {
        let Some(address) = request.reporter else { return vec![] };
        let boot_nic = hardware.report().nics.iter().find(|nic| nic.boot);
        let who = Who { mac: boot_nic.map(|nic| nic.mac), address };
        let bundle = plan.bundle.map(|(hash, bytes)| Object { hash, bytes });
        let manifest = self.images.manifest_bytes(plan.image).ok();
        let manifest = manifest.map(|text| Object { hash: plan.image.0, bytes: text.len() as u64 });
        // Its loader may have brought the agent, but every machine fetches the manifest.
        manifest.into_iter().for_each(|manifest| self.peers.want(manifest, who));
        let mut peers: Vec<SocketAddr> = vec![];
        for file in bundle.into_iter().chain(manifest) {
            for peer in self.peers.of(file, who) {
                if !peers.contains(&peer) {
                    peers.push(peer);
                }
            }
        }
        peers
    }

    /// The swarm's first seed, at the address at which the machine reached the server.
    fn seed(&self, reached: Option<IpAddr>) -> Seed {
        let listening = self.swarm.addresses();
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

impl Provisioner for Provisioning {
    fn image(&self, name: &str) -> Result<ImageShown, Refused> {
        self.images.get(name).map(|info| image_shown(&info)).map_err(|error| image_refused(&error))
    }

    fn target(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan> {
        let plan = tailor::plan(hardware, &self.request(request)?).map_err(refused)?;
        self.root(request, hardware)?;
        let words = target_words(hardware, &plan);
        let warnings = self.warnings_of(request, hardware, &plan);
        Ok(Target { disk: plan.target, words, warnings })
    }

    fn tailor(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Provision, NoPlan> {
        let wanted = self.request(request)?;
        let mut plan = tailor::plan(hardware, &wanted).map_err(refused)?;
        plan.bundle = self.bundle(hardware, self.root(request, hardware)?)?;
        plan.peers = self.neighbours(request, hardware, &plan);
        let target = target_words(hardware, &plan);
        let warnings = self.warnings_of(request, hardware, &plan);
        Ok(Provision { plan, target, warnings })
    }

    // A loader takes ten seconds beside thirty machines that have just been switched on, and all of them wait for it.
    fn prepare(&self, hardware: &CheckedHardware) {
        if let Err(error) = self.bundle(hardware, None) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a bundle could not be built ahead");
        }
        for nic in booted_from(hardware.report()) {
            let _ = self.kits.loader_for(Some(nic));
        }
    }

    fn admit(&self, admission: Admission) -> Soon<'_, ()> {
        Box::pin(async move {
            if self.swarm.admit(admission).await.is_err() {
                tracing::warn!("a machine could not be let into the swarm: it is stopping");
            }
        })
    }

    fn is_here(&self, key: PublicKey) -> Soon<'_, bool> {
        Box::pin(async move {
            // While the swarm is stopping, its members are unknown.
            self.swarm.is_here(key).await.unwrap_or(true)
        })
    }

    fn dismiss(&self, key: PublicKey, reason: Option<String>) -> Soon<'_, ()> {
        Box::pin(async move {
            // A swarm that is stopping admits nobody anyway.
            let _ = self.swarm.expel(key, reason).await;
        })
    }
}

fn refused(refusal: tailor::Refusal) -> NoPlan {
    NoPlan::Refused { hint: refusal.hint(), why: Box::new(refusal) }
}

fn target_words(hardware: &CheckedHardware, plan: &Plan) -> String {
    let disks = &hardware.report().disks;
    let Some(disk) = disks.iter().find(|disk| plan.target.matches(disk)) else { return String::new() };
    let mut holds = disk.contents.words().to_owned();
    if !disk.found.is_empty() {
        holds = format!("{holds}, holds {}", disk.found.join(", "));
    }
    format!("{} {} {}, {holds}", disk.name, common::text::bytes(disk.size), disk.label())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_once_with_what_to_do() {
        let refusal = tailor::Refusal::ReadOnly { disk: "sda".to_owned() };
        let shown = common::causes::with_causes(&refused(refusal));
        assert_eq!(shown, "the target sda is read-only (switch its write protection off)");
        let rule = "colour=red".parse::<tailor::TargetRule>().unwrap_err();
        assert_eq!(common::causes::with_causes(&NoPlan::failed(rule.clone())), rule.to_string());
    }

    #[test]
    fn a_seed_is_where_the_machine_reached_us() {
        assert_eq!(at("/ip4/0.0.0.0/tcp/4001", [10, 0, 0, 1].into()), "/ip4/10.0.0.1/tcp/4001");
        assert_eq!(at("/ip4/127.0.0.1/tcp/9", "fe80::1".parse().unwrap()), "/ip6/fe80::1/tcp/9");
    }
}
