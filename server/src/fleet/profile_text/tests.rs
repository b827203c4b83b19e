//! Profiles with mistakes of all kinds, each at its place.

use super::*;

fn look(name: &str) -> Option<String> {
    (name != "debian").then(|| format!("there is no image `{name}`"))
}

fn files() -> BTreeMap<String, ProfileFile> {
    let holds = |text: &str| ProfileFile::Holds(UserData::from(text));
    [
        ("setup.sh".to_owned(), holds("#!/bin/sh\ntrue\n")),
        ("keys".to_owned(), holds("# ours\n\nssh-ed25519 AAAA anna\nssh-ed25519 BBBB bert\n")),
        ("none".to_owned(), holds("# nothing\n")),
        ("odd".to_owned(), holds("a-key\n")),
        ("yaml".to_owned(), holds("#cloud-config\npackages: [htop]\n")),
        ("gone".to_owned(), ProfileFile::Unread("No such file or directory".to_owned())),
    ]
    .into()
}

fn said(text: &str) -> Vec<String> {
    let (wish, mistakes) = check(text, &files(), look);
    let is_wrong = mistakes.iter().any(|mistake| mistake.severity == Severity::Error);
    assert_eq!(wish.is_none(), is_wrong, "{text}: {mistakes:?}");
    let line = |mistake: &Mistake| {
        let (line, column) = (mistake.line.unwrap_or(0), mistake.column.unwrap_or(0));
        format!("{line}:{column} {} {}", mistake.text, mistake.hint.clone().unwrap_or_default())
    };
    mistakes.iter().map(line).collect()
}

#[test]
fn everything_that_can_be_said() {
    let text = r##"
image = "debian"
machines = "role=web, memory>=16G"
disk = "bus=nvme,size>=100G"
hostname = "web-{id}"
ssh_keys = ["ssh-ed25519 CCCC carl", "keys"]
user_data_file = "yaml"
hook_root = "label=root"
confirm = false
at_end = "stay"

[[hook]]
file = "setup.sh"
timeout = 60
on_failure = "continue"

[[hook]]
name = "second"
script = """
echo hello
"""
"##;
    let (wish, mistakes) = check(text, &files(), look);
    assert_eq!(mistakes, []);
    let wish = wish.unwrap();
    assert_eq!(wish.selection.labels, ["role=web, memory>=16G"]);
    assert_eq!(wish.ssh_keys, ["ssh-ed25519 CCCC carl", "ssh-ed25519 AAAA anna", "ssh-ed25519 BBBB bert"]);
    assert!(wish.user_data.unwrap().0.starts_with(b"#cloud-config"));
    let [first, second] = wish.hooks.as_slice() else { panic!("{:?}", wish.hooks) };
    assert_eq!(
        (first.name.as_str(), first.timeout_seconds, first.on_failure),
        ("setup.sh", 60, OnFailure::Continue)
    );
    assert_eq!(
        (second.name.as_str(), second.timeout_seconds, second.on_failure),
        ("second", 300, OnFailure::Fail)
    );
    assert_eq!((wish.finish, wish.no_confirm), (Some(Finish::Stay), true));
    assert_eq!(files_named(text), ["yaml", "setup.sh", "keys"]);
    let (least, mistakes) = check("image = 'debian'", &files(), look);
    assert!(least.is_some_and(|least| least.finish.is_none()) && mistakes.is_empty());
}

#[test]
fn every_mistake_has_its_place() {
    let long = "x".repeat(HOSTNAME_PATTERN_MAX + 1);
    let many = "[[hook]]\nname = 'a'\nscript = 'x'\n".repeat(HOOKS_MAX + 1);
    let table = [
        ("", "0:0 no image is named"),
        ("image = 'debain'", "1:9 there is no image `debain`"),
        ("imgae = 'debian'", "1:1 there is no setting `imgae` did you mean `image`?"),
        ("image = 5", "1:9 invalid type: integer `5`, expected a string"),
        ("image = 'debian'\nmachines = ''", "2:12 an empty selector fits every machine"),
        ("image = 'debian'\nmachines = 'role web'", "2:12 the selector `role web`"),
        ("image = 'debian'\nmachines = 'memory>=much'", "2:12 "),
        ("image = 'debian'\ndisk = 'colour=red'", "2:8 "),
        ("image = 'debian'\nhostname = ''", "2:12 the hostname pattern is empty"),
        (&format!("image = 'debian'\nhostname = '{long}'"), "2:12 the hostname pattern"),
        ("image = 'debian'\nssh_keys = 'ssh-ed25519 A b'", "2:12 invalid type: string"),
        ("image = 'debian'\nssh_keys = [\n  'keys',\n  'gone',\n]", "4:3 cannot read `gone`: No such file"),
        ("image = 'debian'\nssh_keys = ['none']", "2:13 the file holds no SSH public key"),
        ("image = 'debian'\nssh_keys = ['odd']", "2:13 an SSH key is no line"),
        ("image = 'debian'\nssh_keys = ['''ssh-ed25519 A\nB''']", "2:13 an SSH key is no line"),
        ("image = 'debian'\nuser_data = '#!'\nuser_data_file = 'yaml'", "3:18 user_data and user_data_file"),
        ("image = 'debian'\nuser_data_file = 'other'", "2:18 the file `other` was not sent"),
        ("image = 'debian'\nhook_root = '2'", "2:13 a root for hooks, and no hook"),
        (
            "image = 'debian'\nat_end = 'explode'",
            "2:10 unknown variant `explode`, expected one of `reboot`, `power-off`, `stay`",
        ),
        ("image = 'debian'\nhostname = 'a'\npersonalise = false", "3:15 the profile gives the OS something"),
        ("image = 'debian'\nconfirm = 'no'", "2:11 invalid type: string"),
        ("image = 'debian'\n[[hook]]\ntimeout = 5", "the hook has no script"),
        ("image = 'debian'\n[[hook]]\nscript = 'x'", "the hook has no name"),
        (
            "image = 'debian'\n[[hook]]\nfile = 'setup.sh'\nscript = 'x'",
            "3:8 the hook has a file and a script",
        ),
        ("image = 'debian'\n[[hook]]\nfile = 'gone'", "3:8 cannot read `gone`"),
        ("image = 'debian'\n[[hook]]\nfile = 'setup.sh'\ntimeout = 0", "a time limit of 0 seconds"),
        ("image = 'debian'\n[[hook]]\nfile = 'setup.sh'\ntimeout = '1m'", "4:11 invalid type: string"),
        ("image = 'debian'\n[[hook]]\nfile = 'setup.sh'\ntimeout = -1", "4:11 "),
        (
            "image = 'debian'\n[[hook]]\nfile = 'setup.sh'\nonfailure = 'fail'",
            "4:1 there is no setting `onfailure` did you mean `on_failure`?",
        ),
        ("image = 'debian'\n[[hook]]\nname = 'a b'\nscript = 'x'", "`a b` is no name of a hook"),
        ("image = 'debian'\n[[hook]]\nname = 'a'\nscript = ''", "the hook a is empty"),
        ("image = 'debian'\nhook = 'setup.sh'", "2:8 invalid type: string"),
        ("image debian", "1:7 "),
        ("image = 'debian'\nimage = 'debian'", "2:1 duplicate key"),
    ];
    let mut others = vec![];
    for (text, wanted) in table {
        let said = said(text);
        if said.len() != 1 || !said[0].contains(wanted) {
            others.push(format!("{text}\n  wanted {wanted}\n  found {said:?}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    let said = said(&format!("image = 'debian'\n{many}"));
    assert!(said[0].contains("two hooks are called a"), "{said:?}");
    let (wish, _) = check(&"#".repeat(PROFILE_BYTES_MAX + 1), &files(), look);
    assert!(wish.is_none());
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "imgae = 'debian'\nimage = 'debain'\ndisk = 'colour=red'\nat_end = 'explode'\n[[hook]]\nfile = 'gone'\n";
    let said = said(text);
    let lines: Vec<_> = said.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "6"], "{said:?}");
}

#[test]
fn what_an_order_would_warn_of_is_a_warning() {
    let (wish, mistakes) = check("image = 'debian'\nuser_data = 'packages: [htop]'", &files(), look);
    assert!(wish.is_some() && mistakes.len() == 1, "{mistakes:?}");
    assert_eq!((mistakes[0].severity, mistakes[0].line), (Severity::Warning, Some(2)));
}
