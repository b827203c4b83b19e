//! Core: rules, which give labels to machines for what they are: `when = "memory>=64G"`, `set = { size = "large" }`.
//! Touches `fleet::machine`, `fleet::facts`, `fleet::selectors`.
//!
//! What a rule gives is never recorded: it is found anew whenever a machine is looked at, so it follows each report and
//! each change of the rules at once, and nothing of a rule that was taken out stays behind. A rule looks at facts and at
//! labels that an admin gave, never at what rules give: so rules cannot go in circles, and their order only decides which
//! of two that give the same label counts: the first. An admin's label counts before those of all rules.
//!
//! Labels of rules let nobody in: what a stranger reports is easily forged.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::facts::shown;
use super::machine::Machine;
use super::selectors::{BadSelector, Selectors, Shown, Term, fact};

/// The longest key or value of a label, in bytes.
pub const LABEL_MAX: usize = 128;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    when: Selectors,
    set: BTreeMap<String, String>,
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabelRule {
    /// Its condition cannot be read.
    #[error(transparent)]
    When(#[from] BadSelector),
    /// It gives no label.
    #[error("it sets no label")]
    SetsNothing,
    /// It gives what cannot be a label.
    #[error("it sets `{key}`: {why}")]
    Label {
        /// The key of that label.
        key: String,
        /// Why it cannot be one.
        why: BadLabel,
    },
}

/// Why a key and a value are no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// One is too long or has control characters, or the key is empty.
    #[error("a label is empty, too long, or holds control characters")]
    Text,
    /// The key has a character that selectors read otherwise.
    #[error("a label's key holds none of = , ! < > ( ) \" and no blank at an end")]
    Key,
    /// The key is the name of a fact.
    #[error("that is what a machine shows of itself, and cannot be a label")]
    Fact,
}

/// Whether `key` and `value` can be a label.
///
/// # Errors
/// When they cannot, with the reason.
pub fn check_label(key: &str, value: &str) -> Result<(), BadLabel> {
    let short = |text: &str| text.len() <= LABEL_MAX && !text.chars().any(char::is_control);
    if key.is_empty() || value.is_empty() || !short(key) || !short(value) {
        return Err(BadLabel::Text);
    }
    if key.contains(['=', ',', '!', '<', '>', '(', ')', '"', '*', '\\']) || key.trim() != key {
        return Err(BadLabel::Key);
    }
    if fact(key).is_some() { Err(BadLabel::Fact) } else { Ok(()) }
}

impl Rule {
    /// The rule that gives the labels `set` to machines that `when` selects.
    ///
    /// # Errors
    /// When the condition cannot be read, or `set` is no label.
    pub fn new(when: &str, set: BTreeMap<String, String>) -> Result<Self, BadLabelRule> {
        let when = Selectors::parse(&[when.to_owned()])?;
        if set.is_empty() {
            return Err(BadLabelRule::SetsNothing);
        }
        for (key, value) in &set {
            check_label(key, value).map_err(|why| BadLabelRule::Label { key: key.clone(), why })?;
        }
        Ok(Self { when, set })
    }
}

/// All rules, the first of two that give the same label before the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        Self(rules)
    }
}

impl Rules {
    /// The labels that rules give to `machine`, without those that an admin gave it.
    #[must_use]
    pub fn labels(&self, machine: &Machine) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for rule in self.0.iter().filter(|rule| rule.when.fit(|key| shown(machine, key))) {
            for (key, value) in rule.set.iter().filter(|(key, _)| !machine.labels.contains_key(*key)) {
                labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        labels
    }

    /// Whether `machine` fits all of `selectors`, with the labels that rules give it.
    #[must_use]
    pub fn fit(&self, selectors: &Selectors, machine: &Machine) -> bool {
        let answers = self.answers(machine);
        selectors.fit(|key| answers.to(key))
    }

    /// What `machine` answers to the keys of selectors.
    #[must_use]
    pub fn answers<'a>(&self, machine: &'a Machine) -> Answers<'a> {
        let given = if self.0.is_empty() { BTreeMap::new() } else { self.labels(machine) };
        Answers { machine, given }
    }
}

/// What one machine answers to the keys of selectors.
#[derive(Debug)]
pub struct Answers<'a> {
    machine: &'a Machine,
    given: BTreeMap<String, String>,
}

impl Answers<'_> {
    /// What it answers to `key`.
    #[must_use]
    pub fn to(&self, key: &str) -> Shown {
        let mut shown = shown(self.machine, key);
        shown.label = shown.label.or_else(|| self.given.get(key).cloned());
        shown
    }

    fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.machine.labels.iter().chain(&self.given)
    }
}

/// Why none of `machines` fits `selectors`, for an error: the first term that no machine fits, with what comes nearest;
/// or that each is fitted by some, and all of them by none.
#[must_use]
pub fn why_nobody<'a>(
    rules: &Rules,
    selectors: &Selectors,
    machines: impl Iterator<Item = &'a Machine> + Clone,
) -> Option<String> {
    let holds =
        |term: &&Term| machines.clone().any(|machine| term.holds(&rules.answers(machine).to(term.key())));
    let Some(term) = selectors.terms().iter().find(|term| !holds(term)) else {
        return (selectors.terms().len() > 1)
            .then(|| "each term fits some machines, but no machine fits all".to_owned());
    };
    let answers: Vec<Answers<'_>> = machines.clone().map(|machine| rules.answers(machine)).collect();
    Some(format!("no machine fits `{term}`{}", nearest(term, &answers)))
}

/// What comes nearest to a term that nobody fits: the values of its key, or another key.
fn nearest(term: &Term, answers: &[Answers<'_>]) -> String {
    let mut values: Vec<Cow<'_, str>> = vec![];
    let mut keys: Vec<&str> = vec![];
    for answer in answers {
        let shown = answer.to(term.key());
        let texts = shown.label.map_or(shown.texts, |label| vec![label]);
        values.extend(texts.into_iter().map(Cow::Owned));
        keys.extend(answer.labels().map(|(key, _)| key.as_str()));
    }
    values.sort_unstable();
    values.dedup();
    keys.extend(super::selectors::FACTS.iter().map(|(name, _)| *name));
    keys.sort_unstable();
    keys.dedup();
    let asked = term.values().first().map_or("", String::as_str);
    let like = closest(asked, values.iter().map(AsRef::as_ref));
    if let Some(like) = like.filter(|_| !asked.is_empty()) {
        return format!("; there is `{}={like}`", term.key());
    }
    if !values.is_empty() {
        return format!("; its values are {}", common::text::some_of(values.iter(), VALUES_SHOWN, ", "));
    }
    match closest(term.key(), keys.into_iter().filter(|key| *key != term.key())) {
        Some(key) => format!("; there is the key `{key}`"),
        None => String::new(),
    }
}

/// How many values of a key an error names.
const VALUES_SHOWN: usize = 8;

/// The text of `all` that is most like `text`; `None` when none is much like it.
pub fn closest<'a>(text: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// A letter wrong, missing or swapped in a short word is above it, two are below.
    const LIKE: f64 = 0.8;
    let scored =
        all.map(|other| (strsim::jaro_winkler(text, other), other)).filter(|(score, _)| *score > LIKE);
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use common::id::MachineId;
    use jiff::Timestamp;

    use super::super::marks::Fingerprint;
    use super::*;

    fn machine(id: u64, labels: &[(&str, &str)]) -> Machine {
        let mut machine =
            Machine::new(MachineId(id), Fingerprint::default(), "lab".to_owned(), Timestamp::UNIX_EPOCH);
        machine.labels = set(labels);
        machine
    }

    fn set(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn rules(all: &[(&str, &str, &str)]) -> Rules {
        all.iter()
            .map(|(when, key, value)| Rule::new(when, set(&[(key, value)])).unwrap())
            .collect::<Vec<_>>()
            .into()
    }

    fn selectors(text: &str) -> Selectors {
        Selectors::parse(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn rules_give_labels_and_an_admins_count_more() {
        let rules = rules(&[
            ("site=lab", "where", "inside"),
            ("state=discovered", "where", "anywhere"),
            ("role=web", "tier", "front"),
            // What rules give is no condition of rules.
            ("where=inside", "looped", "yes"),
        ]);
        assert_eq!(rules.labels(&machine(1, &[])), set(&[("where", "inside")]));
        let web = machine(2, &[("role", "web"), ("where", "here")]);
        assert_eq!(rules.labels(&web), set(&[("tier", "front")]));
        assert!(rules.fit(&selectors("where=inside,!role"), &machine(1, &[])));
        assert!(rules.fit(&selectors("where=here,tier=front"), &web));
        assert!(!rules.fit(&selectors("where=inside"), &web));
    }

    #[test]
    fn what_is_no_rule_is_said_so() {
        for (when, labels, wanted) in [
            ("memory>=big", &[("a", "b")][..], "no size"),
            ("memory>=1G", &[], "sets no label"),
            ("memory>=1G", &[("memory", "b")], "shows of itself"),
            ("memory>=1G", &[("a=b", "b")], "none of ="),
            ("memory>=1G", &[("a", "")], "empty"),
            ("memory>=1G", &[("a", "x\ny")], "control characters"),
        ] {
            let error = Rule::new(when, set(labels)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn who_fits_nobody_is_told_what_comes_near() {
        let machines = [machine(1, &[("role", "web")]), machine(2, &[("role", "db"), ("rack", "r1")])];
        let why = |text: &str| why_nobody(&Rules::default(), &selectors(text), machines.iter());
        for (text, wanted) in [
            ("role=wep", "no machine fits `role=wep`; there is `role=web`"),
            ("role=gpu", "no machine fits `role=gpu`; its values are db, web"),
            ("rol=web", "no machine fits `rol=web`; there is the key `role`"),
            ("rack=r1,role=web", "each term fits some machines, but no machine fits all"),
            ("site=lap", "no machine fits `site=lap`; there is `site=lab`"),
            ("zzz", "no machine fits `zzz`"),
        ] {
            assert_eq!(why(text).as_deref(), Some(wanted));
        }
    }
}
