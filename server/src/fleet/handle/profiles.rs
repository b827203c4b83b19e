//! Profiles: checked, added, shown and removed. Touches the fleet's queue and the provisioner.

use std::sync::Arc;

use common::text::some_of;

use super::super::decide::Fleet;
use super::super::order::refused;
use super::super::profile_text;
use super::super::request::FleetError;
use super::FleetHandle;
use crate::api::shapes::{ProfileAdd, ProfileAdded, ProfileShown};
use crate::toml_text::{Mistake, Severity};

/// How many mistakes a refusal lists; a dry run lists all.
const MISTAKES_SHOWN: usize = 8;

impl FleetHandle {
    /// Adds a profile, or with `dry_run` returns the mistakes in it.
    ///
    /// # Errors
    /// When it has mistakes, its name is not allowed or taken, or it could not be committed; then nothing is stored.
    pub async fn add_profile(&self, add: ProfileAdd) -> Result<ProfileAdded, FleetError> {
        let (name, replace) = (add.name.clone(), add.replace);
        let allowed = self.look(move |fleet| fleet.check_profile_name(&name, replace)).await?;
        allowed.map_err(FleetError::Refused)?;
        let provisioner = Arc::clone(&self.provisioner);
        let ProfileAdd { name, text, files, replace, dry_run } = add;
        let (wish, mistakes) = tokio::task::spawn_blocking(move || {
            profile_text::check(&text, &files, |image| {
                provisioner.image(image).err().map(|refusal| refusal.error)
            })
        })
        .await
        .map_err(FleetError::Worker)?;
        if dry_run {
            return Ok(ProfileAdded { profile: None, mistakes });
        }
        let wish = wish.ok_or_else(|| wrong(&name, &mistakes))?;
        let added = self.ask(move |fleet, now| fleet.add_profile(&name, wish, replace, now)).await?;
        Ok(ProfileAdded { profile: Some(added.map_err(FleetError::Refused)?), mistakes })
    }

    /// Removes the profile of this name.
    ///
    /// # Errors
    /// When there is none, or it could not be committed.
    pub async fn remove_profile(&self, name: String) -> Result<ProfileShown, FleetError> {
        self.ask(move |fleet, now| fleet.remove_profile(&name, now)).await?.map_err(FleetError::Refused)
    }

    /// All profiles, by their names.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn profiles(&self) -> Result<Vec<ProfileShown>, FleetError> {
        self.look(Fleet::profiles_shown).await
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn profile(&self, name: String) -> Result<ProfileShown, FleetError> {
        let shown = self.look(move |fleet| fleet.profile(&name).map(|profile| profile.shown())).await?;
        shown.map_err(FleetError::Refused)
    }
}

/// The refusal of a profile with these mistakes.
fn wrong(name: &str, mistakes: &[Mistake]) -> FleetError {
    let place = |mistake: &Mistake| match (mistake.line, mistake.column) {
        (Some(line), Some(column)) => format!("{line}:{column} {}", mistake.text),
        _ => mistake.text.clone(),
    };
    let errors: Vec<String> =
        mistakes.iter().filter(|mistake| mistake.severity == Severity::Error).map(place).collect();
    let mut refusal = refused(
        format!("the profile `{name}` has mistakes, and nothing is stored"),
        "with `dry_run` all of them are listed, each with what to do",
    );
    refusal.cause = Some(some_of(errors.iter(), MISTAKES_SHOWN, "; "));
    FleetError::Refused(refusal)
}
