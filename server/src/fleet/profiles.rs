//! Core, part of the fleet: profiles added, shown and removed. What was ordered by one keeps what it said. Touches `api`,
//! `common` and the other cores of the fleet.

use common::limits::cut;
use common::step::{Step, What};
use common::text::fits_name;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{Fleet, Whose};
use super::order::refused;
use super::profile::Profile;
use super::state::Change;
use crate::api::shapes::{DeployOrder, ProfileShown};
use crate::toml_text::nearest;

/// The most profiles: each is a file that somebody wrote.
const PROFILES_MAX: usize = 1000;
/// The longest name of a profile.
const NAME_MAX: usize = 64;

impl Fleet {
    /// Records the profile of this name; with `replace` also in the place of another.
    ///
    /// # Errors
    /// When its name is not allowed or taken, or there are too many.
    pub fn add_profile(
        &mut self,
        name: &str,
        wish: DeployOrder,
        replace: bool,
        now: Timestamp,
    ) -> Result<ProfileShown, Refused> {
        self.check_profile_name(name, replace)?;
        let before = self.state.profile_named(name).map(|profile| profile.number);
        let (number, by) = (self.state.last_profile + 1, self.caller_name());
        let profile = Profile { number, name: name.to_owned(), added: now, by, wish };
        let shown = profile.shown();
        let hooks: Vec<&str> = shown.wish.hooks.iter().map(|hook| hook.name.as_str()).collect();
        let hooks = if hooks.is_empty() { String::new() } else { format!(", hooks {}", hooks.join(" ")) };
        let verb = if before.is_some() { "replaced" } else { "added" };
        let text = format!("{}: {verb} the profile {name} ({}{hooks})", profile.by, shown.wish.image);
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
        if let Some(before) = before {
            self.put(Change::ProfileGone(before));
        }
        self.put(Change::Profile(Box::new(profile)));
        Ok(shown)
    }

    /// Checks whether a profile may be added under this name.
    ///
    /// # Errors
    /// When it is not allowed or taken, or there are too many.
    pub fn check_profile_name(&self, name: &str, replace: bool) -> Result<(), Refused> {
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits_name) {
            let error = format!("`{}` cannot be a profile's name", cut(name, 80).escape_debug());
            return Err(refused(
                error,
                "letters, digits, dots and dashes, such as web or lab-2026; --name gives another",
            ));
        }
        match self.state.profile_named(name) {
            Some(_) if replace => Ok(()),
            Some(profile) => {
                let error = format!(
                    "there is a profile `{name}`, which {} added at {:.0}",
                    profile.by, profile.added
                );
                Err(refused(error, "--replace puts this one in its place; --name gives it another name"))
            }
            None if self.state.profiles.len() >= PROFILES_MAX => {
                Err(refused(format!("there are {PROFILES_MAX} profiles"), "remove those that nobody uses"))
            }
            None => Ok(()),
        }
    }

    /// Removes the profile of this name. Orders that were placed by it stay what they are.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_profile(&mut self, name: &str, now: Timestamp) -> Result<ProfileShown, Refused> {
        let profile = self.profile(name)?;
        let (number, shown) = (profile.number, profile.shown());
        let text = format!("{}: removed the profile {}", self.caller_name(), shown.name);
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
        self.put(Change::ProfileGone(number));
        Ok(shown)
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// When there is none, with the name that is most like it.
    pub fn profile(&self, name: &str) -> Result<&Profile, Refused> {
        self.state.profile_named(name).ok_or_else(|| {
            let names: Vec<&str> =
                self.state.profiles.values().map(|profile| profile.name.as_str()).collect();
            let near = nearest(name, &names).map(|near| format!("did you mean `{near}`?"));
            let hint = near.unwrap_or_else(|| "`swarmboot profile list` shows them".to_owned());
            refused(format!("there is no profile `{}`", cut(name, 80).escape_debug()), &hint)
        })
    }

    /// All profiles, by their names.
    #[must_use]
    pub fn profiles_shown(&self) -> Vec<ProfileShown> {
        let mut all: Vec<ProfileShown> = self.state.profiles.values().map(Profile::shown).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::state::State;

    fn wish() -> DeployOrder {
        DeployOrder { image: "debian".to_owned(), ..DeployOrder::default() }
    }

    #[test]
    fn a_name_is_taken_until_it_is_replaced_or_removed() {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        let now = Timestamp::UNIX_EPOCH;
        let first = fleet.add_profile("web", wish(), false, now).unwrap();
        let refusal = fleet.add_profile("web", wish(), false, now).unwrap_err();
        assert!(refusal.error.contains("`web`") && refusal.hint.unwrap().contains("--replace"));
        let second = fleet.add_profile("web", wish(), true, now).unwrap();
        assert!(second.number > first.number && fleet.profiles_shown().len() == 1);
        fleet.remove_profile("web", now).unwrap();
        assert!(fleet.remove_profile("web", now).is_err() && fleet.state.profiles.is_empty());
        assert!(fleet.add_profile("web", wish(), true, now).unwrap().number > second.number);
        let near = fleet.profile("wed").unwrap_err();
        assert_eq!(near.hint.as_deref(), Some("did you mean `web`?"));
        assert!(fleet.profile("zzz").unwrap_err().hint.unwrap().contains("profile list"));
    }

    #[test]
    fn what_cannot_be_a_name_is_none() {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        for name in ["", "a b", "web=role=web", "../x", "\u{1b}[31m", &"a".repeat(65)] {
            let refusal = fleet.add_profile(name, wish(), false, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(refusal.error.contains("cannot be a profile's name"), "{name}: {refusal:?}");
        }
        for n in 0..PROFILES_MAX {
            fleet.add_profile(&format!("p{n}"), wish(), false, Timestamp::UNIX_EPOCH).unwrap();
        }
        assert!(fleet.add_profile("more", wish(), false, Timestamp::UNIX_EPOCH).is_err());
        assert!(
            fleet.add_profile("p7", wish(), true, Timestamp::UNIX_EPOCH).is_ok(),
            "it takes a place that is there"
        );
    }
}
