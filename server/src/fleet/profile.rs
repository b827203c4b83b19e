//! Core: a profile as it is on record, and an order by it: what the order says itself goes before what the profile says.
//! Touches `api` and `common`.

use common::hooks::{Hook, RootRule};
use common::user_data::UserData;
use jiff::Timestamp;

use crate::api::shapes::{DeployOrder, HookShown, ProfileShown, UsedProfile, Wish};

/// A profile: the wished outcome for a kind of machine.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The number that the server gave it; never given again, also not to one that takes its place.
    pub number: u64,
    /// Its name; no two have the same.
    pub name: String,
    /// When it was added.
    pub added: Timestamp,
    /// Who added it.
    pub by: String,
    /// What it says, as an order that names no machines. The labels of its selection are the profile's selectors.
    pub wish: DeployOrder,
}

impl Profile {
    /// It as the API shows it.
    #[must_use]
    pub fn shown(&self) -> ProfileShown {
        ProfileShown {
            name: self.name.clone(),
            number: self.number,
            added: self.added,
            by: self.by.clone(),
            wish: wish(&self.wish),
        }
    }

    /// It as an order names it that was placed by it.
    #[must_use]
    pub fn used(&self) -> UsedProfile {
        UsedProfile { name: self.name.clone(), number: self.number, added: self.added }
    }

    /// The selectors of the machines that it is for.
    #[must_use]
    pub fn selectors(&self) -> &[String] {
        &self.wish.selection.labels
    }

    /// `order` by this profile, for machines that also fit `selectors`.
    #[must_use]
    pub fn order(&self, order: &DeployOrder, selectors: &[String]) -> DeployOrder {
        let own = self.wish.clone();
        let mut selection = order.selection.clone();
        selection.labels.extend_from_slice(selectors);
        // The root belongs to the scripts: a script that the order brings does not run in the root of the profile's.
        let (hooks, root) = if order.hooks.is_empty() {
            (
                own.hooks,
                if order.hook_root == RootRule::Auto { own.hook_root } else { order.hook_root.clone() },
            )
        } else {
            (order.hooks.clone(), order.hook_root.clone())
        };
        DeployOrder {
            image: first(&order.image, own.image),
            selection,
            profiles: vec![],
            profile: Some(self.used()),
            disk: first(&order.disk, own.disk),
            hostname: order.hostname.clone().or(own.hostname),
            ssh_keys: if order.ssh_keys.is_empty() { own.ssh_keys } else { order.ssh_keys.clone() },
            user_data: order.user_data.clone().or(own.user_data),
            hooks,
            hook_root: root,
            no_personalise: order.no_personalise || own.no_personalise,
            no_confirm: order.no_confirm || own.no_confirm,
            finish: order.finish.or(own.finish),
            ..order.clone()
        }
    }
}

fn first(ordered: &str, own: String) -> String {
    if ordered.is_empty() { own } else { ordered.to_owned() }
}

/// What an order says, or a profile, without anything secret.
#[must_use]
pub fn wish(order: &DeployOrder) -> Wish {
    let hook = |hook: &Hook| HookShown {
        name: hook.name.clone(),
        bytes: hook.script.len(),
        timeout_seconds: hook.timeout_seconds,
        on_failure: hook.on_failure,
    };
    Wish {
        image: order.image.clone(),
        machines: order.selection.labels.join(","),
        disk: order.disk.clone(),
        hostname: order.hostname.clone(),
        ssh_keys: order.ssh_keys.len(),
        user_data_bytes: order.user_data.as_ref().map(UserData::len),
        hooks: order.hooks.iter().map(hook).collect(),
        hook_root: order.hook_root.clone(),
        personalise: !order.no_personalise,
        confirm: !order.no_confirm,
        at_end: order.finish.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use common::plan::Finish;
    use serde_json::json;

    use super::*;

    fn profile() -> Profile {
        let wish = json!({
            "image": "debian", "selection": {"labels": ["role=web"]}, "disk": "bus=nvme", "hostname": "web-{id}",
            "ssh_keys": ["ssh-ed25519 AAAA theirs"], "user_data": "#!theirs",
            "hooks": [{"name": "theirs", "script": "true"}], "hook_root": "2", "finish": "power-off",
        });
        Profile {
            number: 7,
            name: "web".to_owned(),
            added: Timestamp::UNIX_EPOCH,
            by: "anna".to_owned(),
            wish: serde_json::from_value(wish).unwrap(),
        }
    }

    fn ordered(order: serde_json::Value) -> DeployOrder {
        let order = serde_json::from_value(order).unwrap();
        profile().order(&order, profile().selectors())
    }

    #[test]
    fn an_order_that_says_nothing_gets_all_of_the_profile() {
        let order =
            ordered(json!({"selection": {"machines": ["m1"], "labels": ["memory>=16G"]}, "gather": 2}));
        assert_eq!(order.selection.machines, ["m1"]);
        assert_eq!(order.selection.labels, ["memory>=16G", "role=web"], "both must fit");
        assert_eq!((order.image.as_str(), order.disk.as_str()), ("debian", "bus=nvme"));
        assert_eq!(order.hostname.as_deref(), Some("web-{id}"));
        assert_eq!((order.ssh_keys.len(), order.user_data.unwrap().0.as_slice()), (1, &b"#!theirs"[..]));
        assert_eq!((order.hooks[0].name.as_str(), order.hook_root), ("theirs", RootRule::Number(2)));
        assert_eq!((order.finish, order.gather), (Some(Finish::PowerOff), Some(2)));
        assert_eq!(order.profile.unwrap().number, 7);
    }

    #[test]
    fn what_the_order_says_goes_before_it() {
        let order = ordered(json!({
            "image": "other", "disk": "serial=S", "hostname": "x", "ssh_keys": ["ssh-ed25519 AAAA mine"],
            "user_data": "#!mine", "hooks": [{"name": "mine", "script": "true"}], "finish": "reboot",
            "no_confirm": true,
        }));
        assert_eq!((order.image.as_str(), order.disk.as_str()), ("other", "serial=S"));
        assert_eq!(order.hostname.as_deref(), Some("x"));
        assert_eq!(order.ssh_keys, ["ssh-ed25519 AAAA mine"], "keys take the place of the profile's");
        assert_eq!(order.user_data.unwrap().0, b"#!mine");
        assert_eq!(order.hooks.len(), 1);
        assert_eq!((order.hooks[0].name.as_str(), order.hook_root), ("mine", RootRule::Auto));
        assert_eq!((order.finish, order.no_confirm), (Some(Finish::Reboot), true));
        assert_eq!(ordered(json!({"hook_root": "label=root"})).hook_root, RootRule::Label("root".to_owned()));
    }

    #[test]
    fn what_is_shown_holds_no_secrets() {
        let shown = serde_json::to_string(&profile().shown()).unwrap();
        for secret in ["AAAA", "#!theirs", "true\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("\"ssh_keys\":1") && shown.contains("\"user_data_bytes\":8"), "{shown}");
    }
}
