//! Core: hooks, an admin's scripts that the agent runs in the new root before the disk can boot, and the choice of the
//! partition that is the root. The server chooses it too, before it takes an order, so that an image without one is
//! refused before a disk is cleared. Touches `limits`, `table`, `user_data`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, MachineId};
use crate::limits::{
    HOOK_BYTES_MAX, HOOK_NAME_MAX, HOOK_SECONDS, HOOK_SECONDS_MAX, HOOKS_BYTES_MAX, HOOKS_MAX, cut,
};
use crate::table::Kind;
use crate::text::fits_name;
use crate::user_data::UserData;

/// A script that runs with the new OS's root as its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Hook {
    /// Its name in the log: letters, digits, dots, dashes and underscores, 64 at the most.
    pub name: String,
    /// The script, at most 64 KiB. It may hold secrets, so it travels and is kept as user-data is.
    pub script: UserData,
    /// Seconds after which it is killed, with all that it started: 1 to 3600, 300 where nothing is said.
    #[serde(default = "seconds")]
    pub timeout_seconds: u32,
    /// What its failure means for the job.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn seconds() -> u32 {
    HOOK_SECONDS
}

/// What the failure of a hook means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The job fails and the disk is not sealed, so it does not boot.
    #[default]
    Fail,
    /// The failure is noted in the log, and the next hook runs.
    Continue,
}

/// Which partition is the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RootRule {
    /// The one whose type says so, or else the largest with a file system that can be mounted.
    #[default]
    Auto,
    /// The partition with this number, from 1.
    Number(u32),
    /// The partition whose file system has this label, or that has this name in the table.
    Label(String),
}

/// A text that names no root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` names no root: give `auto`, a partition's number, or `label=NAME`", cut(.0, 80))]
pub struct BadRootRule(pub String);

impl std::str::FromStr for RootRule {
    type Err = BadRootRule;

    fn from_str(text: &str) -> Result<Self, BadRootRule> {
        let text = text.trim();
        let label = text.strip_prefix("label=").filter(|label| !label.is_empty() && label.len() <= 256);
        match (text, label, text.parse()) {
            ("" | "auto", _, _) => Ok(Self::Auto),
            (_, Some(label), _) => Ok(Self::Label(label.to_owned())),
            (_, None, Ok(number @ 1..)) => Ok(Self::Number(number)),
            _ => Err(BadRootRule(text.to_owned())),
        }
    }
}

impl TryFrom<String> for RootRule {
    type Error = BadRootRule;

    fn try_from(text: String) -> Result<Self, BadRootRule> {
        text.parse()
    }
}

impl From<RootRule> for String {
    fn from(rule: RootRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for RootRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Label(label) => write!(f, "label={label}"),
        }
    }
}

/// The hooks of one job, as the agent is told them on the encrypted control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The scripts, in the order in which they run.
    pub list: Vec<Hook>,
    /// Which partition they run in.
    #[serde(default)]
    pub root: RootRule,
    /// The machine, for the scripts' environment.
    pub machine: MachineId,
    /// The deployment, for the scripts' environment.
    pub deployment: DeploymentId,
    /// The machine's site, for the scripts' environment; may be empty.
    pub site: String,
}

/// Why hooks are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHooks {
    /// There are more than `HOOKS_MAX`.
    #[error("{0} hooks, more than {HOOKS_MAX}")]
    Many(usize),
    /// A name is empty, too long, or has other characters than a name may have.
    #[error("`{}` is no name of a hook: letters, digits, dots, dashes and underscores, {HOOK_NAME_MAX} at the most", cut(.0, 80).escape_debug())]
    Name(String),
    /// Two hooks have one name, so the log could not tell them apart.
    #[error("two hooks are called {0}")]
    Twice(String),
    /// The script is empty.
    #[error("the hook {0} is empty")]
    Empty(String),
    /// The script is longer than `HOOK_BYTES_MAX`.
    #[error("the hook {name} has {bytes} bytes, more than {HOOK_BYTES_MAX}")]
    Long {
        /// The hook's name.
        name: String,
        /// Length of the script in bytes.
        bytes: usize,
    },
    /// All scripts together are longer than `HOOKS_BYTES_MAX`.
    #[error("the hooks have {0} bytes together, more than {HOOKS_BYTES_MAX}")]
    LongTogether(usize),
    /// The time limit is 0 or above `HOOK_SECONDS_MAX`.
    #[error("the hook {name} has a time limit of {seconds} seconds; 1 to {HOOK_SECONDS_MAX} can be given")]
    Seconds {
        /// The hook's name.
        name: String,
        /// The limit that was given.
        seconds: u32,
    },
}

/// Checks the hooks of an order or a profile.
///
/// # Errors
/// Which bound they exceed, or which hook has no proper name or script.
pub fn check(hooks: &[Hook]) -> Result<(), BadHooks> {
    if hooks.len() > HOOKS_MAX {
        return Err(BadHooks::Many(hooks.len()));
    }
    for (at, hook) in hooks.iter().enumerate() {
        let name = hook.name.clone();
        if name.is_empty() || name.len() > HOOK_NAME_MAX || !name.chars().all(fits_name) {
            return Err(BadHooks::Name(name));
        }
        if hooks[..at].iter().any(|other| other.name == name) {
            return Err(BadHooks::Twice(name));
        }
        if hook.script.is_empty() {
            return Err(BadHooks::Empty(name));
        }
        if hook.script.len() > HOOK_BYTES_MAX {
            return Err(BadHooks::Long { name, bytes: hook.script.len() });
        }
        if !(1..=HOOK_SECONDS_MAX).contains(&hook.timeout_seconds) {
            return Err(BadHooks::Seconds { name, seconds: hook.timeout_seconds });
        }
    }
    let bytes = hooks.iter().map(|hook| hook.script.len()).sum();
    if bytes > HOOKS_BYTES_MAX { Err(BadHooks::LongTogether(bytes)) } else { Ok(()) }
}

/// A partition, as the choice of the root sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in the table, from 1; 0 for a disk that is one file system without a table.
    pub number: u32,
    /// The type in the table; `None` without a table.
    pub kind: Option<Kind>,
    /// Its name in the table; may be empty.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it holds, in the words of [`crate::filesystem`]; `None` when that is not known.
    pub holds: Option<String>,
    /// The label of its file system; `None` when it has none.
    pub label: Option<String>,
}

/// The file systems that a root may have: what `filesystem` calls them, and the kernel's type and module.
const MOUNTABLE: [(&str, &str); 3] =
    [("ext file system", "ext4"), ("XFS file system", "xfs"), ("btrfs file system", "btrfs")];

/// The root of an x86-64 system in the discoverable partitions specification:
/// 4f68bce3-e8cd-4db1-96e7-fbcaf984b709, in its byte order on disk.
const ROOT_TYPE: [u8; 16] =
    [0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09];

impl Candidate {
    /// The kernel's name of its file system, by which it is mounted and its module called; `None` for one that no root
    /// has, or that needs more than this partition: LVM, LUKS, RAID.
    #[must_use]
    pub fn file_system(&self) -> Option<&'static str> {
        let holds = self.holds.as_deref()?;
        MOUNTABLE.iter().find(|(words, _)| *words == holds).map(|(_, kernel)| *kernel)
    }

    fn is_typed_root(&self) -> bool {
        self.kind == Some(Kind::Gpt(ROOT_TYPE))
    }

    fn words(&self) -> String {
        let holds = self.holds.as_deref().unwrap_or("nothing that is known");
        if self.number == 0 { holds.to_owned() } else { format!("partition {} holds {holds}", self.number) }
    }
}

/// Why no partition can be the root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoot {
    /// No partition has a file system that can be mounted.
    #[error("the image has no root that hooks could run in, for which ext4, xfs and btrfs are known: {0}")]
    Nowhere(String),
    /// The rule names a partition that is not there.
    #[error("the image has no partition `{rule}` for hooks: {seen}")]
    NotThere {
        /// The rule.
        rule: RootRule,
        /// What is there.
        seen: String,
    },
    /// The rule names several.
    #[error("several partitions are `{rule}`: {seen}")]
    Several {
        /// The rule.
        rule: RootRule,
        /// What is there.
        seen: String,
    },
    /// The partition that the rule names cannot be mounted.
    #[error("hooks cannot run in what `{rule}` names, for which ext4, xfs and btrfs are known: {seen}")]
    NotMountable {
        /// The rule.
        rule: RootRule,
        /// What it holds.
        seen: String,
    },
}

/// The partition that is the root.
///
/// # Errors
/// When there is none, or the rule does not mean just one.
pub fn root<'a>(candidates: &'a [Candidate], rule: &RootRule) -> Result<&'a Candidate, NoRoot> {
    let words = |list: &[&Candidate]| match list {
        [] => "it has no partition".to_owned(),
        some => some.iter().map(|one| one.words()).collect::<Vec<_>>().join(", "),
    };
    let all: Vec<&Candidate> = candidates.iter().collect();
    let named: Vec<&Candidate> = match rule {
        RootRule::Auto => {
            let fit = all.iter().copied().filter(|one| one.file_system().is_some());
            return fit
                .min_by_key(|one| (!one.is_typed_root(), std::cmp::Reverse(one.bytes), one.number))
                .ok_or_else(|| NoRoot::Nowhere(words(&all)));
        }
        RootRule::Number(number) => all.iter().copied().filter(|one| one.number == *number).collect(),
        RootRule::Label(label) => {
            let has = |one: &&Candidate| one.label.as_ref() == Some(label) || one.name == *label;
            all.iter().copied().filter(has).collect()
        }
    };
    match named.as_slice() {
        [] => Err(NoRoot::NotThere { rule: rule.clone(), seen: words(&all) }),
        [one] if one.file_system().is_none() => {
            Err(NoRoot::NotMountable { rule: rule.clone(), seen: one.words() })
        }
        [one] => Ok(*one),
        several => Err(NoRoot::Several { rule: rule.clone(), seen: words(several) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str) -> Hook {
        let script = UserData::from("true\n");
        Hook { name: name.to_owned(), script, timeout_seconds: 300, on_failure: OnFailure::Fail }
    }

    fn partition(number: u32, bytes: u64, holds: &str) -> Candidate {
        let holds = (!holds.is_empty()).then(|| holds.to_owned());
        Candidate { number, kind: Some(Kind::Mbr(0x83)), name: String::new(), bytes, holds, label: None }
    }

    #[test]
    fn hooks_are_bounded() {
        let script = |bytes: usize| UserData(vec![b'#'; bytes]);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[hook("10-sshd"), hook("20.sh")]), Ok(()));
        let table = [
            (vec![hook("a"); HOOKS_MAX + 1], BadHooks::Many(HOOKS_MAX + 1)),
            (vec![hook("")], BadHooks::Name(String::new())),
            (vec![hook("a b")], BadHooks::Name("a b".to_owned())),
            (vec![hook("\u{1b}[2J")], BadHooks::Name("\u{1b}[2J".to_owned())),
            (vec![hook("a"), hook("a")], BadHooks::Twice("a".to_owned())),
            (vec![Hook { script: script(0), ..hook("a") }], BadHooks::Empty("a".to_owned())),
            (
                vec![Hook { script: script(HOOK_BYTES_MAX + 1), ..hook("a") }],
                BadHooks::Long { name: "a".to_owned(), bytes: HOOK_BYTES_MAX + 1 },
            ),
            (
                vec![Hook { timeout_seconds: 0, ..hook("a") }],
                BadHooks::Seconds { name: "a".to_owned(), seconds: 0 },
            ),
            (
                vec![Hook { timeout_seconds: 3601, ..hook("a") }],
                BadHooks::Seconds { name: "a".to_owned(), seconds: 3601 },
            ),
        ];
        for (hooks, wanted) in table {
            assert_eq!(check(&hooks), Err(wanted));
        }
        let long: Vec<Hook> =
            (0..5).map(|n| Hook { script: script(HOOK_BYTES_MAX), ..hook(&format!("h{n}")) }).collect();
        assert_eq!(check(&long), Err(BadHooks::LongTogether(5 * HOOK_BYTES_MAX)));
        assert_eq!(check(&long[..4]), Ok(()));
    }

    #[test]
    fn a_hook_without_limits_has_the_usual_ones() {
        let hook: Hook = serde_json::from_str(r#"{"name": "a", "script": "true"}"#).unwrap();
        assert_eq!((hook.timeout_seconds, hook.on_failure), (300, OnFailure::Fail));
        assert!(!format!("{hook:?}").contains("true"), "a script may hold secrets");
    }

    #[test]
    fn rules_for_the_root_are_read_as_they_are_written() {
        for text in ["auto", "2", "label=cloudimg-rootfs", "label=a=b"] {
            assert_eq!(text.parse::<RootRule>().unwrap().to_string(), text);
        }
        assert_eq!("".parse(), Ok(RootRule::Auto));
        for text in ["0", "-1", "label=", "root", "/dev/sda1", "4294967296"] {
            let error = text.parse::<RootRule>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("label=NAME"), "{error}");
        }
    }

    #[test]
    fn the_root_is_the_one_of_its_type_or_the_largest() {
        let number =
            |list: &[Candidate], rule: &str| root(list, &rule.parse().unwrap()).map(|found| found.number);
        let ext = "ext file system";
        let mut debian = vec![
            partition(1, 9 << 30, ext),
            partition(14, 3 << 20, ""),
            partition(15, 99, "FAT file system"),
        ];
        assert_eq!(number(&debian, "auto"), Ok(1));
        debian.push(partition(16, 1 << 30, ext));
        assert_eq!(number(&debian, "auto"), Ok(1));
        debian[3].kind = Some(Kind::Gpt(ROOT_TYPE));
        assert_eq!(number(&debian, "auto"), Ok(16), "its type goes before its size");
        assert_eq!(number(&debian, "1"), Ok(1));
        assert!(matches!(number(&debian, "2"), Err(NoRoot::NotThere { .. })));
        assert!(matches!(number(&debian, "15"), Err(NoRoot::NotMountable { .. })));
        debian[0].label = Some("root".to_owned());
        assert_eq!(number(&debian, "label=root"), Ok(1));
        debian[3].name = "root".to_owned();
        assert!(matches!(number(&debian, "label=root"), Err(NoRoot::Several { .. })));
        assert_eq!(number(&[partition(1, 5, "btrfs file system")], "auto"), Ok(1));
    }

    #[test]
    fn what_cannot_be_mounted_is_said() {
        let said = |list: &[Candidate]| root(list, &RootRule::Auto).unwrap_err().to_string();
        assert!(said(&[]).contains("no partition"));
        let lvm = said(&[partition(1, 5, "FAT file system"), partition(3, 9, "LVM physical volume")]);
        assert!(lvm.contains("partition 3 holds LVM physical volume"), "{lvm}");
        assert!(said(&[partition(2, 5, "LUKS container")]).contains("LUKS"));
        assert!(said(&[partition(2, 5, "")]).contains("nothing that is known"));
    }
}
