//! Core: an order whose labels, disk rule and bounds have been parsed and checked. That is done once, when it comes in:
//! all later code works with the parsed values. Touches `api`, `common` and the tailor's disk rule.

use common::hooks::{self, RootRule};
use common::limits::{GATHER_SECONDS_MAX, USER_DATA_BYTES_MAX};
use common::user_data::UserData;
use common::wire::http::Refused;
use serde::Deserialize;

use super::selectors::{BadSelector, Selectors};
use super::user_data;
use crate::api::shapes::{ACCEPTABLE, DeployOrder, Warning};
use crate::tailor::{BadRule, TargetRule};

/// The most SSH keys of one order.
pub(super) const SSH_KEYS_MAX: usize = 256;
/// The longest SSH key; an RSA key of 16,384 bits has about 2,800 characters.
const SSH_KEY_MAX: usize = 16 << 10;
/// The longest hostname pattern.
pub(super) const HOSTNAME_PATTERN_MAX: usize = 128;

/// A parsed and checked order. Kept in the records as it was ordered, and parsed again when it is read from there.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "DeployOrder")]
pub struct CheckedOrder {
    ordered: DeployOrder,
    selectors: Selectors,
    disk: TargetRule,
}

/// Why an order from the records cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOrder {
    /// Its disk rule is malformed.
    #[error(transparent)]
    Rule(#[from] BadRule),
    /// One of its label selectors is malformed.
    #[error(transparent)]
    Label(#[from] BadSelector),
}

/// A refusal with a hint and no cause.
pub(super) fn refused(error: impl Into<String>, hint: &str) -> Refused {
    Refused { error: error.into(), cause: None, hint: Some(hint.to_owned()) }
}

/// The selectors in `texts`, or a refusal with a hint.
pub(super) fn selectors(texts: &[String]) -> Result<Selectors, Refused> {
    Selectors::parse(texts).map_err(|error| {
        refused(
            error.to_string(),
            "write role=web, role!=web, 'role in (web, db)', role, '!role' or memory>=16G, with commas between",
        )
    })
}

/// Parses an order from the records. Its bounds were checked when it was ordered, and those of a later version do not
/// apply to it.
impl TryFrom<DeployOrder> for CheckedOrder {
    type Error = BadOrder;

    fn try_from(ordered: DeployOrder) -> Result<Self, BadOrder> {
        let (disk, selectors) = (ordered.disk.parse()?, Selectors::parse(&ordered.selection.labels)?);
        Ok(Self { ordered, selectors, disk })
    }
}

impl CheckedOrder {
    /// Checks an order as it comes in, before anything is looked up for it.
    ///
    /// # Errors
    /// When it cannot be parsed, exceeds a bound, contradicts itself, or can mean no machine.
    pub fn check(ordered: DeployOrder) -> Result<Self, Refused> {
        let disk = ordered.disk.parse().map_err(|error: BadRule| {
            refused(error.to_string(), "such as bus=nvme,size>=100G; leave it out where there is one disk")
        })?;
        if ordered.image.is_empty() {
            return Err(refused(
                "the order names no image",
                "name one with --image, or a profile with --profile",
            ));
        }
        check_bounds(&ordered)?;
        let order = Self { selectors: selectors(&ordered.selection.labels)?, ordered, disk };
        if !order.names_machines() && order.selectors.is_empty() && !order.ordered.open {
            return Err(refused(
                "the order names no machine",
                "name machines with --machines or -l, or take those that appear with --open",
            ));
        }
        Ok(order)
    }

    /// The order as it was given. For its labels and its disk rule use the other methods, which have them parsed.
    #[must_use]
    pub fn as_ordered(&self) -> &DeployOrder {
        &self.ordered
    }

    /// The labels of the machines that it is for.
    #[must_use]
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// The rule that chooses the disk to write.
    #[must_use]
    pub fn disk_rule(&self) -> &TargetRule {
        &self.disk
    }

    /// Whether it names machines, and does not only select them by labels.
    #[must_use]
    pub fn names_machines(&self) -> bool {
        !self.ordered.selection.machines.is_empty()
    }

    /// Whether a machine is deployed only when its installed OS has called home.
    #[must_use]
    pub fn awaits_call_home(&self) -> bool {
        awaits_call_home(&self.ordered)
    }

    /// Warnings about what cloud-init will make of its user-data.
    #[must_use]
    pub fn user_data_warnings(&self) -> Vec<Warning> {
        user_data_warnings(&self.ordered)
    }

    /// How many machines an open order takes in all: up to its limit, and up to its ceiling. An order of an earlier
    /// version has no ceiling.
    #[must_use]
    pub fn room(&self) -> usize {
        let least = self.ordered.limit.into_iter().chain(self.ordered.max_machines).min();
        least.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// The most machines that it may write, on a server where one order may write `ceiling` without saying so.
    #[must_use]
    pub fn most(&self, ceiling: u32) -> u32 {
        self.ordered.max_machines.unwrap_or(ceiling)
    }

    /// Prepares it for the records: removes what was shown, and fixes its lifetime in seconds (0 is for ever) and its
    /// ceiling.
    pub(super) fn settle(&mut self, life_seconds: u64, ceiling: u32) {
        self.ordered.shown = None;
        self.ordered.expires_seconds = Some(life_seconds);
        self.ordered.max_machines = Some(self.most(ceiling));
    }

    /// Lengthens its lifetime by `seconds`, in which it was paused; `life_seconds` is the one it had.
    pub(super) fn lengthen(&mut self, life_seconds: u64, seconds: u64) {
        self.ordered.expires_seconds = Some(life_seconds.saturating_add(seconds));
    }

    /// Which partition its hooks run in; `None` when it has none.
    #[must_use]
    pub fn hook_root(&self) -> Option<&RootRule> {
        let removed = self.ordered.secrets_removed;
        (!self.ordered.hooks.is_empty() && !removed).then_some(&self.ordered.hook_root)
    }

    /// Whether it has user-data, keys or hooks.
    #[must_use]
    pub fn holds_secrets(&self) -> bool {
        let ordered = &self.ordered;
        ordered.user_data.is_some() || !ordered.ssh_keys.is_empty() || !ordered.hooks.is_empty()
    }

    /// Removes user-data, SSH keys and hooks, and marks the order as without secrets.
    pub(crate) fn remove_secrets(&mut self) {
        self.ordered.user_data = None;
        self.ordered.ssh_keys.clear();
        self.ordered.hooks.clear();
        self.ordered.secrets_removed = true;
    }
}

fn awaits_call_home(order: &DeployOrder) -> bool {
    !order.no_confirm && !order.no_personalise
}

fn user_data_warnings(order: &DeployOrder) -> Vec<Warning> {
    let warnings = |data: &UserData| user_data::warnings(&data.0, awaits_call_home(order));
    order.user_data.as_ref().map(warnings).unwrap_or_default()
}

/// Whether `text` is a line that may be an SSH public key.
pub(super) fn is_ssh_key(text: &str) -> bool {
    text.len() <= SSH_KEY_MAX && !text.chars().any(char::is_control) && text.contains(' ')
}

/// Whether `text` may be a pattern of hostnames.
pub(super) fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.len() <= HOSTNAME_PATTERN_MAX && !text.chars().any(char::is_control)
}

/// Checks everything of an order but its disk rule and labels.
fn check_bounds(order: &DeployOrder) -> Result<(), Refused> {
    let bytes = order.user_data.as_ref().map_or(0, UserData::len);
    if bytes > USER_DATA_BYTES_MAX {
        let error = format!("user-data of {bytes} bytes, more than {USER_DATA_BYTES_MAX}");
        return Err(refused(error, "let the user-data fetch what is large"));
    }
    hooks::check(&order.hooks).map_err(|error| {
        refused(error.to_string(), "put what is large into the image, or let a script fetch it")
    })?;
    if order.hooks.is_empty() && order.hook_root != RootRule::Auto {
        return Err(refused("a root for hooks, and no hook", "give scripts with --hook, or leave it out"));
    }
    // Checked here and not for each machine: an open order may have no machine yet.
    if let Some(why) = Warning::refusal(&user_data_warnings(order), &order.accept) {
        return Err(refused(why, "with --no-confirm, machines are deployed as soon as their disk is whole"));
    }
    if order.ssh_keys.len() > SSH_KEYS_MAX || !order.ssh_keys.iter().all(|key| is_ssh_key(key)) {
        return Err(refused(
            "an SSH key is no line such as `ssh-ed25519 AAAA… name`",
            "give public keys, one a line",
        ));
    }
    if order.hostname.as_ref().is_some_and(|pattern| !is_pattern(pattern)) {
        return Err(refused(
            "the hostname pattern is empty, too long or holds control characters",
            "such as web-{id}",
        ));
    }
    if order.gather_seconds.is_some_and(|seconds| seconds > GATHER_SECONDS_MAX) {
        return Err(refused(
            format!("a gate cannot hold machines for longer than {GATHER_SECONDS_MAX} seconds, a day"),
            "order when they are there, or leave --gather out: whoever comes later just joins",
        ));
    }
    if order.limit == Some(0) || order.gather == Some(0) {
        return Err(refused("a limit or gate of 0 machines", "leave it out, or give a number from 1"));
    }
    if order.max_parallel == Some(0) || order.max_machines == Some(0) {
        return Err(refused(
            "an order for 0 machines at once, or in all",
            "leave it out, or give a number from 1; `deploy pause` holds an order back",
        ));
    }
    if order.limit.is_some() && !order.open {
        return Err(refused(
            "--limit without --open",
            "a limit bounds how many machines an open order takes",
        ));
    }
    if order.no_personalise
        && (order.user_data.is_some() || !order.ssh_keys.is_empty() || order.hostname.is_some())
    {
        return Err(refused(
            "the order gives the OS something and forbids to personalise it",
            "leave out one of the two",
        ));
    }
    if let Some(word) = order.accept.iter().find(|word| !ACCEPTABLE.contains(&word.as_str())) {
        let error = format!("`{}` is nothing that can be accepted", common::limits::cut(word, 80));
        return Err(refused(error, "`deploy start --dry-run` names what it would take"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn kept(order: &Value) -> Result<CheckedOrder, serde_json::Error> {
        serde_json::from_value(order.clone())
    }

    #[test]
    fn what_is_kept_is_what_was_ordered() {
        let order = json!({"image": "debian", "selection": {"labels": ["role=web"]}, "disk": " bus=nvme "});
        let ordered: DeployOrder = serde_json::from_value(order.clone()).unwrap();
        let checked = kept(&order).unwrap();
        assert_eq!(
            serde_json::to_value(checked.as_ordered()).unwrap(),
            serde_json::to_value(&ordered).unwrap()
        );
        let terms: Vec<String> = checked.selectors().terms().iter().map(ToString::to_string).collect();
        assert_eq!(terms, ["role=web"]);
        assert_eq!(checked.disk_rule().to_string(), "bus=nvme");
    }

    #[test]
    fn a_kept_order_that_is_not_understood_says_what_of_it() {
        for (key, order) in [
            ("colour", json!({"image": "debian", "selection": {"machines": ["m1"]}, "disk": "colour=red"})),
            ("role web", json!({"image": "debian", "selection": {"labels": ["role web"]}})),
        ] {
            let error = kept(&order).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        // Only the bounds of the version that took the order apply.
        let long = json!({"image": "debian", "selection": {"machines": ["m1"]}, "gather_seconds": u64::MAX});
        assert!(kept(&long).is_ok());
        assert!(CheckedOrder::check(serde_json::from_value(long).unwrap()).is_err());
    }

    #[test]
    fn an_order_that_means_nobody_is_none() {
        let order = |order: Value| CheckedOrder::check(serde_json::from_value(order).unwrap());
        assert!(order(json!({"image": "debian", "selection": {}})).is_err());
        assert!(order(json!({"image": "debian", "selection": {}, "open": true})).is_ok());
        assert!(order(json!({"image": "debian", "selection": {"labels": ["a=b"]}})).is_ok());
    }
}
