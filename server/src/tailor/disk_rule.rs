//! Core: the target rule, which says what disk an admin means. Owns its text form and which disks it covers; that it
//! must cover exactly one is decided in `plan`. Touches `common` and the units of sizes.
//!
//! A rule is one or more conditions with commas between them, all of which must hold: `bus=nvme,size>=200G`.
//! Kernel names such as `sda` are no condition: they change between two starts of one machine.

use std::fmt;
use std::str::FromStr;

use common::hardware::{Bus, Disk};
use serde::{Deserialize, Serialize};

use crate::units::disk_bytes;

/// The longest text that is parsed as a rule, in bytes.
const RULE_BYTES_MAX: usize = 1024;

/// Which disk to write. The default rule has no conditions (text `auto`) and means the only disk there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetRule {
    text: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Text { key: TextKey, equal: bool, pattern: String },
    Bus { equal: bool, bus: Bus },
    Size { compare: Compare, bytes: u64 },
    Rotational { equal: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextKey {
    Serial,
    Wwn,
    Model,
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    /// Within a tenth: a disk sold as 500 GB has 500,107,862,016 bytes.
    About,
}

/// Why a text is no target rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// Longer than `RULE_BYTES_MAX`; its length in bytes.
    #[error("a target rule of {0} bytes")]
    Long(usize),
    /// A condition without an operator, a key or a value.
    #[error("`{0}` is no condition: write one as serial=XYZ, size>=100G or bus=nvme")]
    Shape(String),
    /// A key that rules do not know.
    #[error(
        "`{0}` is nothing that a disk is known by: use serial, wwn, model, path, bus, size or rotational"
    )]
    Key(String),
    /// A condition on a kernel name such as `sda`; the name.
    #[error(
        "kernel names such as `{0}` change between two starts: use serial, wwn, path, model, bus or size"
    )]
    KernelName(String),
    /// A comparison that the key does not have.
    #[error("`{key}` cannot be compared with `{operator}`")]
    Operator {
        /// The key as it was written, in lower case.
        key: String,
        /// The operator that it does not take.
        operator: &'static str,
    },
    /// A value that cannot be parsed for its key.
    #[error("`{value}` is no {wanted}")]
    Value {
        /// The value as it was written.
        value: String,
        /// What the key takes, to be read after "is no".
        wanted: &'static str,
    },
}

impl TargetRule {
    /// Whether the rule has no conditions.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether all conditions hold for `disk`. A removable disk, or one on USB, is covered only by a rule that has a
    /// condition of equality on its serial number, WWN, path or bus.
    #[must_use]
    pub fn covers(&self, disk: &Disk) -> bool {
        let named = self.conditions.iter().any(|condition| {
            matches!(
                condition,
                Condition::Text { key: TextKey::Serial | TextKey::Wwn | TextKey::Path, equal: true, .. }
                    | Condition::Bus { equal: true, .. }
            )
        });
        (named || !(disk.removable || disk.bus == Bus::Usb))
            && self.conditions.iter().all(|condition| condition.holds(disk))
    }
}

impl Condition {
    fn holds(&self, disk: &Disk) -> bool {
        match self {
            Self::Text { key, equal, pattern } => {
                let text = match key {
                    TextKey::Serial => &disk.serial,
                    TextKey::Wwn => &disk.wwn,
                    TextKey::Model => &disk.model,
                    TextKey::Path => &disk.path,
                };
                text_fits(pattern, text.trim()) == *equal
            }
            Self::Bus { equal, bus } => (disk.bus == *bus) == *equal,
            Self::Rotational { equal } => disk.rotational == *equal,
            Self::Size { compare, bytes } => match compare {
                Compare::Equal => disk.size == *bytes,
                Compare::NotEqual => disk.size != *bytes,
                Compare::Less => disk.size < *bytes,
                Compare::AtMost => disk.size <= *bytes,
                Compare::More => disk.size > *bytes,
                Compare::AtLeast => disk.size >= *bytes,
                Compare::About => disk.size.abs_diff(*bytes) <= *bytes / 10,
            },
        }
    }
}

/// Whether `text` matches `pattern`, whatever the case of ASCII letters; a `*` stands for any text.
#[must_use]
pub fn text_fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl FromStr for TargetRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        if text.len() > RULE_BYTES_MAX {
            return Err(BadRule::Long(text.len()));
        }
        let text = text.trim();
        if text.is_empty() || text == "auto" {
            return Ok(Self::default());
        }
        let conditions = text.split(',').map(|part| read_condition(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), conditions })
    }
}

/// The operators, longest first so that `>=` is not read as `>`.
const OPERATORS: [(&str, Compare); 7] = [
    (">=", Compare::AtLeast),
    ("<=", Compare::AtMost),
    ("!=", Compare::NotEqual),
    ("=", Compare::Equal),
    (">", Compare::More),
    ("<", Compare::Less),
    ("~", Compare::About),
];

fn read_condition(part: &str) -> Result<Condition, BadRule> {
    let shape = || BadRule::Shape(part.to_owned());
    let at = part.find(['=', '<', '>', '!', '~']).ok_or_else(shape)?;
    let (key, rest) = part.split_at(at);
    let (operator, compare) = OPERATORS.iter().find(|(text, _)| rest.starts_with(text)).ok_or_else(shape)?;
    let (key, value) = (key.trim().to_ascii_lowercase(), rest[operator.len()..].trim());
    if key.is_empty() || value.is_empty() {
        return Err(shape());
    }
    let equality = || match compare {
        Compare::Equal => Ok(true),
        Compare::NotEqual => Ok(false),
        _ => Err(BadRule::Operator { key: key.clone(), operator }),
    };
    let wrong = |wanted| BadRule::Value { value: value.to_owned(), wanted };
    let text = |key| Ok(Condition::Text { key, equal: equality()?, pattern: value.to_owned() });
    match key.as_str() {
        "serial" => text(TextKey::Serial),
        "wwn" => text(TextKey::Wwn),
        "model" => text(TextKey::Model),
        "path" => text(TextKey::Path),
        "bus" => {
            let bus =
                read_bus(value).ok_or_else(|| wrong("bus: nvme, ata, scsi, virtio, usb, mmc or file"))?;
            Ok(Condition::Bus { equal: equality()?, bus })
        }
        "size" => {
            let bytes = disk_bytes(value).ok_or_else(|| wrong("size such as 500G (10^9) or 500Gi (2^30)"))?;
            Ok(Condition::Size { compare: *compare, bytes })
        }
        "rotational" => match value {
            "yes" | "true" => Ok(Condition::Rotational { equal: equality()? }),
            "no" | "false" => Ok(Condition::Rotational { equal: !equality()? }),
            _ => Err(wrong("answer: yes or no")),
        },
        "name" | "disk" | "dev" | "device" => Err(BadRule::KernelName(value.to_owned())),
        _ => Err(BadRule::Key(key.clone())),
    }
}

fn read_bus(text: &str) -> Option<Bus> {
    Some(match text.to_ascii_lowercase().as_str() {
        "nvme" => Bus::Nvme,
        "ata" | "sata" => Bus::Ata,
        "scsi" | "sas" => Bus::Scsi,
        "virtio" => Bus::Virtio,
        "usb" => Bus::Usb,
        "mmc" => Bus::Mmc,
        "file" => Bus::File,
        _ => return None,
    })
}

impl fmt::Display for TargetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.text.is_empty() { "auto" } else { &self.text })
    }
}

impl TryFrom<String> for TargetRule {
    type Error = BadRule;
    fn try_from(text: String) -> Result<Self, BadRule> {
        text.parse()
    }
}

impl From<TargetRule> for String {
    fn from(rule: TargetRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use common::testing;
    use proptest::prelude::*;

    use super::*;

    fn disk() -> Disk {
        Disk {
            bus: Bus::Nvme,
            size: 500_107_862_016,
            model: "Samsung SSD 970 EVO Plus 500GB".to_owned(),
            serial: "S4EVNF0M123456A  ".to_owned(),
            wwn: "eui.0025385b01234567".to_owned(),
            path: "pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0".to_owned(),
            ..testing::disk("nvme0n1")
        }
    }

    #[test]
    fn rules_cover_what_they_say() {
        let table = [
            ("auto", true),
            ("serial=S4EVNF0M123456A", true),
            ("serial=s4evnf0m123456a", true),
            ("serial=S4EVNF0M", false),
            ("serial=S4EV*", true),
            ("serial!=S4EV*", false),
            ("wwn=eui.0025385b01234567", true),
            ("model=*970 evo*", true),
            ("model=samsung*500gb", true),
            ("path=*0000:02:00.0*", true),
            ("bus=nvme", true),
            ("bus!=nvme", false),
            ("bus=sata", false),
            ("size>=500G", true),
            ("size > 1T", false),
            ("size<=500G", false),
            ("size~500G", true),
            ("size~480Gi", true),
            ("size~1T", false),
            ("size=500107862016", true),
            ("size<0.6T", true),
            ("rotational=no", true),
            ("rotational=yes", false),
            ("bus=nvme, size>=100G, model=Samsung*", true),
            ("bus=nvme,size<100G", false),
        ];
        for (text, wanted) in table {
            let rule: TargetRule = text.parse().unwrap();
            assert_eq!(rule.covers(&disk()), wanted, "{text}");
            let again = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<TargetRule>(&again).unwrap(), rule, "{text}");
        }
    }

    #[test]
    fn a_disk_that_can_be_taken_out_must_be_asked_for() {
        let stick = Disk { removable: true, bus: Bus::Usb, ..disk() };
        for (text, wanted) in [("", false), ("size>1G", false), ("bus=usb", true), ("serial=S4*", true)] {
            assert_eq!(text.parse::<TargetRule>().unwrap().covers(&stick), wanted, "{text}");
            // A USB hard disk says that it cannot be taken out.
            let backup = Disk { removable: false, ..stick.clone() };
            assert_eq!(text.parse::<TargetRule>().unwrap().covers(&backup), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_said_clearly() {
        let table = [
            ("sda", "no condition"),
            ("name=sda", "change between"),
            ("disk=/dev/sda", "change between"),
            ("colour=red", "nothing that a disk is known by"),
            ("serial>5", "cannot be compared"),
            ("size=big", "no size"),
            ("size=5X", "no size"),
            ("size=99999999999T", "no size"),
            ("size=1.", "no size"),
            ("bus=scuzzy", "no bus"),
            ("rotational=perhaps", "no answer"),
            ("serial=", "no condition"),
            ("=x", "no condition"),
            ("serial=a,", "no condition"),
            ("serial!a", "no condition"),
        ];
        for (text, wanted) in table {
            let error = text.parse::<TargetRule>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(matches!("x".repeat(2000).parse::<TargetRule>(), Err(BadRule::Long(2000))));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z=<>!~0-9.,* ]{0,40}") {
            if let Ok(rule) = text.parse::<TargetRule>() {
                let again: TargetRule = rule.to_string().parse().unwrap();
                prop_assert_eq!(again.covers(&disk()), rule.covers(&disk()));
            }
        }
    }
}
