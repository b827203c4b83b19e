//! Core, part of the fleet: images that are staged at sites: their relays fetch them ahead of the day. Touches `api`,
//! `common` and the other cores of the fleet.

use common::id::ImageId;
use common::step::{Step, What};
use common::wire::http::Refused;
use jiff::Timestamp;

use super::super::decide::{Fleet, Whose};
use super::super::order::refused;
use super::super::presence::{is_away, words};
use super::super::relay::{Relay, StageOrder};
use super::super::state::Change;
use crate::api::shapes::{ImageShown, ImageStage, Staged, StagedAt};
use crate::traffic::Rate;

/// The most images that are staged, at all sites together.
const STAGES_MAX: usize = 4096;

impl Fleet {
    /// Stages `image` at a site, changes when and how fast, or ends it; returns where it is staged then.
    ///
    /// # Errors
    /// When the site has no relay, or nothing to end.
    pub fn stage(
        &mut self,
        image: &ImageShown,
        order: &ImageStage,
        now: Timestamp,
    ) -> Result<Vec<Staged>, Refused> {
        let known = self.state.staged(image.id, &order.site).cloned();
        if order.remove {
            let Some(known) = known else {
                let site = common::limits::cut(&order.site, 80);
                let error = format!("{} is not staged at `{site}`", image.name);
                return Err(refused(error, "`swarmboot image list` shows where images are staged"));
            };
            self.unstage(&known, "not staged any more", now);
            return Ok(self.staged(Some(image.id), now));
        }
        let relays = self.state.relays.values().filter(|relay| relay.site == order.site);
        if !relays.into_iter().any(|relay| relay.revoked.is_none()) {
            let site = common::limits::cut(&order.site, 80);
            return Err(refused(
                format!("there is no relay at `{site}` that could hold the image"),
                "`swarmboot relay invite --site SITE` invites one",
            ));
        }
        if known.is_none() && self.state.stages.len() >= STAGES_MAX {
            return Err(refused(format!("{STAGES_MAX} images are staged"), "end some with --remove"));
        }
        let limit = order.limit.map(Rate::try_from).transpose();
        let limit =
            limit.map_err(|error| refused(error.to_string(), "leave --limit out for all of the line"))?;
        let number = known.as_ref().map_or(self.state.last_stage + 1, |known| known.number);
        let staged = StageOrder {
            number,
            image: image.id,
            image_name: image.name.clone(),
            wire_bytes: image.wire_bytes,
            site: order.site.clone(),
            not_before: order.not_before,
            limit,
            ordered: now,
        };
        let when = order.not_before.map(|at| format!(", not before {at:.0}")).unwrap_or_default();
        let share = limit.map(|limit| format!(", with at most {limit}")).unwrap_or_default();
        let text = format!("{}: {} is staged{when}{share}", self.caller_name(), image.name);
        self.log(now, Whose::Site(&order.site), Step::Decide, What::Note { text });
        self.put(Change::Stage(Box::new(staged)));
        Ok(self.staged(Some(image.id), now))
    }

    /// Ends the staging of an image that was removed, wherever it is staged.
    pub fn image_gone(&mut self, image: ImageId, now: Timestamp) {
        let over: Vec<StageOrder> =
            self.state.stages.values().filter(|order| order.image == image).cloned().collect();
        for order in over {
            self.unstage(&order, "the image was removed, so it is not staged any more", now);
        }
    }

    fn unstage(&mut self, order: &StageOrder, why: &str, now: Timestamp) {
        let text = format!("{}: {why}", order.image_name);
        self.log(now, Whose::Site(&order.site), Step::Decide, What::Note { text });
        self.put(Change::Unstage(order.number));
        let wanted = self.swarms_of(&order.site, now);
        let keys: Vec<_> = self
            .state
            .relays
            .values()
            .filter(|relay| relay.site == order.site && !wanted.contains(&order.image))
            .filter_map(Relay::key)
            .collect();
        for key in keys {
            let presence = self.relays.here.get_mut(&key);
            let admitted = presence.and_then(|presence| presence.admitted.remove(&order.image));
            let reason = Some("the image is not staged any more".to_owned());
            self.after.dismissed.extend(admitted.map(|key| (key, reason)));
        }
    }

    /// Where images are staged, and how much of them the relays have; only of `image`, if one is given.
    #[must_use]
    pub fn staged(&self, image: Option<ImageId>, now: Timestamp) -> Vec<Staged> {
        let orders =
            self.state.stages.values().filter(|order| image.is_none_or(|image| order.image == image));
        orders.map(|order| self.show_stage(order, now)).collect()
    }

    fn show_stage(&self, order: &StageOrder, now: Timestamp) -> Staged {
        let here = |key| self.relays.here.get(&key).filter(|presence| !is_away(presence, now));
        let relays = self.state.relays.values().filter(|relay| relay.site == order.site);
        let relays = relays.filter(|relay| relay.revoked.is_none()).map(|relay| {
            let presence = relay.key().and_then(here);
            let image = presence.and_then(|here| here.images.iter().find(|image| image.image == order.image));
            StagedAt {
                relay: relay.name.clone(),
                chunks: image.filter(|image| image.total > 0).map(|image| (image.held, image.total)),
                trouble: image.and_then(|image| image.trouble.as_ref()).map(words),
            }
        });
        Staged {
            image: order.image,
            site: order.site.clone(),
            not_before: order.not_before,
            limit: order.limit.map(u64::from),
            relays: relays.collect(),
        }
    }
}
