//! Relays: invitations, enrolments and requests, what is staged at their sites, and machines that are woken. Touches the
//! fleet's queue, the provisioner, and the random source for invitations.

use std::net::IpAddr;
use std::sync::Arc;

use common::id::ImageId;
use common::trust::Signed;
use common::wire::relay::{Enrol, Enrolled, InviteWord, News, StateAnswer, StateRequest};
use jiff::Timestamp;
use tokio::sync::watch;

use super::super::relays::{Heard, LanWake, NotEnrolled, RelayTable};
use super::super::request::{FleetError, Request, Work};
use super::FleetHandle;
use crate::api::shapes::{
    ImageStage, MachineChanged, MachineWake, RelayInvite, RelayInvited, RelayShown, Staged,
};

impl FleetHandle {
    /// What relays are told, republished whenever it changes.
    #[must_use]
    pub fn relays(&self) -> watch::Receiver<Arc<RelayTable>> {
        self.relays.clone()
    }

    /// Invites a relay. The word is in the answer and nowhere else.
    ///
    /// # Errors
    /// When it is refused, or could not be committed.
    pub async fn invite_relay(&self, order: RelayInvite) -> Result<RelayInvited, FleetError> {
        let word = InviteWord::generate(self.key()).map_err(|error| {
            let error = format!("there is no random source: {error}");
            FleetError::Refused(super::super::order::refused(error, "look at the server's host"))
        })?;
        let invitation = word.key().public();
        let (relay, url) = self
            .ask(move |fleet, now| {
                let relay = fleet.invite_relay(&order, invitation, now)?;
                Ok((relay, fleet.settings.url.clone()))
            })
            .await?
            .map_err(FleetError::Refused)?;
        let (name, site, expires) = (relay.name, relay.site, relay.expires);
        Ok(RelayInvited { name, site, expires, word: word.to_string(), url })
    }

    /// Enrols a relay whose request `enrol`, with the hash `digest`, is signed by its own key.
    ///
    /// # Errors
    /// When its word does not let it in; the outer error, when it could not be committed.
    pub async fn enrol_relay(
        &self,
        enrol: Enrol,
        digest: common::id::Hash,
    ) -> Result<Result<Signed<Enrolled>, NotEnrolled>, FleetError> {
        let server = self.key();
        let enrolled = self.ask(move |fleet, now| fleet.enrol_relay(&enrol, &server, now)).await?;
        Ok(enrolled.map(|(name, site)| self.keys.sign(&Enrolled { request: digest, name, site })))
    }

    /// Takes a relay's request, which is signed by its key and has a nonce that was given at `given`, and admits it to
    /// the swarms that it is to be in.
    ///
    /// # Errors
    /// When the changes could not be committed, or the server is stopping.
    pub async fn hear_relay(
        &self,
        request: StateRequest,
        given: Timestamp,
        from: IpAddr,
    ) -> Result<Heard, FleetError> {
        let mut heard = self.ask(move |fleet, now| fleet.hear_relay(&request, given, from, now)).await?;
        if let Heard::Taken { admissions, .. } = &mut heard {
            for admission in std::mem::take(admissions) {
                self.provisioner.admit(admission).await;
            }
        }
        Ok(heard)
    }

    /// The signed answer to a relay's request with the hash `request`.
    #[must_use]
    pub fn answer_relay(&self, request: common::id::Hash, news: News) -> Signed<StateAnswer> {
        self.keys.sign(&StateAnswer { request, nonce: self.nonce(), news })
    }

    /// Logs that a request from `peer` which claims to be passed on by a relay was refused. Never waits: it is dropped
    /// when the queue is full.
    pub fn passed_on_refused(&self, peer: IpAddr, why: String) {
        let work: Work = Box::new(move |fleet, now| {
            fleet.passed_on_refused(peer, why, now);
            Box::new(|_| ())
        });
        if self.requests.try_send(Request::Work(work)).is_err() {
            tracing::debug!("a refused request was not logged: the fleet is busy");
        }
    }

    /// All relays on record.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn relays_shown(&self) -> Result<Vec<RelayShown>, FleetError> {
        self.ask(|fleet, now| fleet.relays_shown(now)).await
    }

    /// Revokes a relay, or withdraws its invitation.
    ///
    /// # Errors
    /// When there is no such relay, or it could not be committed.
    pub async fn revoke_relay(&self, name: String) -> Result<RelayShown, FleetError> {
        self.ask(move |fleet, now| fleet.revoke_relay(&name, now)).await?.map_err(FleetError::Refused)
    }

    /// Stages an image at a site, or ends that; returns where it is staged then.
    ///
    /// # Errors
    /// When there is no such image or relay, or it could not be committed.
    pub async fn stage(&self, image: String, order: ImageStage) -> Result<Vec<Staged>, FleetError> {
        // So that the image is not removed between the look at it and the order.
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let provisioner = Arc::clone(&self.provisioner);
        let image = tokio::task::spawn_blocking(move || provisioner.image(&image))
            .await
            .map_err(FleetError::Worker)?
            .map_err(FleetError::Refused)?;
        self.ask(move |fleet, now| fleet.stage(&image, &order, now)).await?.map_err(FleetError::Refused)
    }

    /// Where images are staged; only of `image`, if one is given.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn staged(&self, image: Option<ImageId>) -> Result<Vec<Staged>, FleetError> {
        self.ask(move |fleet, now| fleet.staged(image, now)).await
    }

    /// Ends the staging of an image that was removed.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn image_gone(&self, image: ImageId) -> Result<(), FleetError> {
        self.tell(move |fleet, now| fleet.image_gone(image, now)).await
    }

    /// Wakes machines. Returns what is done for each, and those that the server itself has to wake.
    ///
    /// # Errors
    /// When the selection is refused.
    pub async fn wake(&self, order: MachineWake) -> Result<(Vec<MachineChanged>, Vec<LanWake>), FleetError> {
        self.ask(move |fleet, now| fleet.wake(&order, now)).await?.map_err(FleetError::Refused)
    }
}
