//! Profiles in the admin's API: added, shown, and used by orders. What a profile holds that may be secret (user-data, keys,
//! scripts) goes in and does not come out again. Touches `common`.

use std::collections::BTreeMap;

use common::hooks::{OnFailure, RootRule};
use common::id::DeploymentId;
use common::plan::Finish;
use common::text::bytes;
use common::user_data::UserData;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ImageShown;
use crate::toml_text::Mistake;

/// Adds a profile, or with `dry_run` only looks for mistakes in it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileAdd {
    /// Its name: letters, digits, dots, dashes and underscores.
    pub name: String,
    /// The TOML text.
    pub text: String,
    /// The files that the text names, by the names that it gives them.
    #[serde(default)]
    pub files: BTreeMap<String, ProfileFile>,
    /// Whether it may take the place of one with the same name.
    #[serde(default)]
    pub replace: bool,
    /// Whether nothing is stored.
    #[serde(default)]
    pub dry_run: bool,
}

/// A file that a profile's text names.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileFile {
    /// What it holds: a text, or `{"base64": …}` where it is none.
    Holds(UserData),
    /// It could not be read, for this reason.
    Unread(String),
}

/// The answer to [`ProfileAdd`].
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileAdded {
    /// The profile as it is stored; `None` for a dry run.
    pub profile: Option<ProfileShown>,
    /// What is wrong with the text: of a dry run everything, else only warnings.
    pub mistakes: Vec<Mistake>,
}

/// A profile.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileShown {
    /// Its name.
    pub name: String,
    /// A number that no other profile has or had: one that takes its place has another.
    pub number: u64,
    /// When it was added.
    pub added: Timestamp,
    /// Who added it.
    pub by: String,
    /// What it says.
    #[serde(flatten)]
    pub wish: Wish,
}

/// What a profile says, or an order with it, without anything secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Wish {
    /// The image's name.
    pub image: String,
    /// The machines that it is for, as selectors; empty for all that an order names.
    #[serde(default)]
    pub machines: String,
    /// The rule for the disk; empty for the machine's only disk.
    #[serde(default)]
    pub disk: String,
    /// The pattern of hostnames; `None` for the machine's name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// How many SSH keys it has.
    #[serde(default)]
    pub ssh_keys: usize,
    /// How many bytes of user-data; `None` for no user-data.
    #[serde(default)]
    pub user_data_bytes: Option<usize>,
    /// Its hooks, in their order.
    #[serde(default)]
    pub hooks: Vec<HookShown>,
    /// Which partition the hooks run in.
    #[serde(default)]
    pub hook_root: RootRule,
    /// Whether the OS is given a hostname, keys and user-data.
    pub personalise: bool,
    /// Whether a job waits for the installed OS to call home.
    pub confirm: bool,
    /// What machines do at the end.
    pub at_end: Finish,
}

/// A hook without its script.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HookShown {
    /// Its name.
    pub name: String,
    /// The length of its script in bytes.
    pub bytes: usize,
    /// Seconds after which it is killed.
    pub timeout_seconds: u32,
    /// What its failure means for the job.
    pub on_failure: OnFailure,
}

/// One profile of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileChoice {
    /// Its name.
    pub name: String,
    /// Selectors of the machines that it is for, instead of those that it has; `None` for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<String>,
}

/// The profile by which something was ordered, as it was then: what it says now may be something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsedProfile {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// When it was added.
    pub added: Timestamp,
}

/// The profile of a dry run, sent back with the order.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownProfile {
    /// Its name.
    pub name: String,
    /// Its number: one that has taken its place since is not ordered by.
    pub number: u64,
    /// The image by its id.
    pub image: common::id::ImageId,
}

/// What an order did, or would do, by one profile.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeployPart {
    /// The profile.
    pub profile: UsedProfile,
    /// The deployment of its machines; `None` for a dry run, and where none of them could be ordered for.
    pub deployment: Option<DeploymentId>,
    /// The image that its name or id stands for.
    pub image: ImageShown,
    /// What is ordered: what the profile says, and what the order says instead.
    pub wish: Wish,
}

impl std::fmt::Display for Wish {
    /// All but the image and the machines, in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.disk.is_empty() {
            write!(f, "disk {}; ", self.disk)?;
        }
        match &self.hostname {
            _ if !self.personalise => f.write_str("not personalised; ")?,
            Some(pattern) => write!(f, "hostname {pattern}; ")?,
            None => {}
        }
        match self.ssh_keys {
            0 => {}
            1 => f.write_str("1 SSH key; ")?,
            many => write!(f, "{many} SSH keys; ")?,
        }
        if let Some(length) = self.user_data_bytes {
            write!(f, "user-data of {}; ", bytes(length as u64))?;
        }
        for hook in &self.hooks {
            let HookShown { name, timeout_seconds, on_failure, .. } = hook;
            let goes_on = if *on_failure == OnFailure::Continue { ", may fail" } else { "" };
            write!(f, "hook {name} ({timeout_seconds} s{goes_on}); ")?;
        }
        if self.hook_root != RootRule::Auto {
            write!(f, "hooks in {}; ", self.hook_root)?;
        }
        if !self.confirm && self.personalise {
            f.write_str("no call home; ")?;
        }
        f.write_str(match self.at_end {
            Finish::Reboot | Finish::Exit => "then it restarts",
            Finish::PowerOff => "then it is switched off",
            Finish::Stay => "then it stays on",
        })
    }
}
