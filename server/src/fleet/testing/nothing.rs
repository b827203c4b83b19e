//! A provisioner that has nothing, for tests of the fleet that need neither images nor a swarm. Touches nothing.

use common::hardware::CheckedHardware;
use common::trust::PublicKey;
use common::wire::http::Refused;

use super::super::provisioner::{NoPlan, PlanRequest, Provision, Provisioner, Soon, Target};
use crate::api::shapes::ImageShown;
use crate::swarm::Admission;

/// A provisioner without images, kits and a swarm.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Provisioner for Nothing {
    fn image(&self, name: &str) -> Result<ImageShown, Refused> {
        Err(Refused { error: format!("no image `{name}`"), cause: None, hint: None })
    }

    fn target(&self, _: &PlanRequest, _: &CheckedHardware) -> Result<Target, NoPlan> {
        Err(NoPlan::failed(std::io::Error::other("there is no kit")))
    }

    fn tailor(&self, _: &PlanRequest, _: &CheckedHardware) -> Result<Provision, NoPlan> {
        Err(NoPlan::failed(std::io::Error::other("there is no kit")))
    }

    fn admit(&self, _: Admission) -> Soon<'_, ()> {
        Box::pin(async {})
    }

    fn is_here(&self, _: PublicKey) -> Soon<'_, bool> {
        Box::pin(async { false })
    }

    fn dismiss(&self, _: PublicKey, _: Option<String>) -> Soon<'_, ()> {
        Box::pin(async {})
    }
}
