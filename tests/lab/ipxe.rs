//! Core: runs boot scripts as iPXE does, in memory: the commands that swarmboot's scripts use, with iPXE's rules for
//! `||` and `&&`, settings and images. What a script wants of the world (a download, a pause, a line on the screen) it
//! gets from a [`World`].
//!
//! The rules are those of iPXE 2.0's src/core/exec.c and src/hci/commands: a line ends its script when its last command
//! fails; a word after `||` runs only after a failure, one after `&&` only after a success, and nothing at all succeeds;
//! an unknown setting is empty; a command that this iPXE was built without fails as if it had no such name.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use sha2::{Digest as _, Sha256};

/// The most commands of one boot: a script that never sleeps and never boots is an error, not a loop for ever.
const COMMANDS_MAX: usize = 10_000;

/// The surroundings of a script.
pub trait World {
    /// Downloads `url`; gives up after `timeout_ms` without progress, or when it thinks best where there is none.
    ///
    /// # Errors
    /// When there is no such file or nobody answers, with the reason. iPXE prints it and the command fails.
    fn fetch(&mut self, url: &str, timeout_ms: Option<u64>) -> Result<Vec<u8>>;

    /// Pauses for so many seconds.
    ///
    /// # Errors
    /// When the run is to end.
    fn sleep(&mut self, seconds: u64) -> Result<()>;

    /// Shows a line.
    fn echo(&mut self, line: &str);
}

/// A file that a script has downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name among the images.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its arguments: for a kernel, its command line.
    pub arguments: String,
}

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// A kernel was started, with the other images as its initial RAM disks.
    Booted {
        /// The kernel.
        kernel: Image,
        /// The others, in the order of their downloads.
        others: Vec<Image>,
    },
    /// The script gave control back to the firmware.
    Left,
}

/// An iPXE: which commands it was built with, its settings and images.
#[derive(Debug)]
pub struct Ipxe {
    /// Whether it has `sha256sum`, which came with 2.0 and is not in builds for BIOS.
    pub digests: bool,
    settings: HashMap<String, String>,
    images: Vec<Image>,
    selected: Option<String>,
    commands: usize,
}

/// What the script does after a line.
enum Next {
    Line,
    Goto(String),
    Script(String),
    End(Ended),
}

/// Why a command failed: one that iPXE would print, or one of the test's own that ends the run.
enum Failed {
    Command(String),
    Run(anyhow::Error),
}

type Done = Result<Option<Next>, Failed>;

fn failed<T>(why: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::Command(why.into()))
}

impl Ipxe {
    /// An iPXE with these settings, such as `net0/mac`. What it was built with follows from `platform` and `version`.
    #[must_use]
    pub fn new(settings: &[(&str, String)]) -> Self {
        let settings: HashMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let is = |name: &str, wanted: fn(&str) -> bool| settings.get(name).is_some_and(|value| wanted(value));
        let digests = is("platform", |value| value == "efi") && is("version", |value| value.starts_with('2'));
        Self { digests, settings, images: vec![], selected: None, commands: 0 }
    }

    /// Runs `script` and those that it chains to.
    ///
    /// # Errors
    /// When it ends without a boot or an `exit`, or runs for ever without a pause; and those of `world`.
    pub fn run(&mut self, script: &str, world: &mut dyn World) -> Result<Ended> {
        let mut script = script.to_owned();
        loop {
            match self.script(&script, world)? {
                Next::Script(next) => script = next,
                Next::End(ended) => return Ok(ended),
                Next::Line | Next::Goto(_) => bail!("the script ends without a boot:\n{script}"),
            }
        }
    }

    fn script(&mut self, script: &str, world: &mut dyn World) -> Result<Next> {
        ensure!(script.starts_with("#!ipxe"), "that is no script: {}", &script[..script.len().min(80)]);
        let lines: Vec<&str> = script.lines().map(str::trim).collect();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            if line.is_empty() || line.starts_with(['#', ':']) {
                continue;
            }
            match self.line(line, world)? {
                Next::Line => {}
                Next::Goto(label) => match lines.iter().position(|line| *line == format!(":{label}")) {
                    Some(found) => at = found,
                    None => bail!("there is no label {label} in the script:\n{script}"),
                },
                end => return Ok(end),
            }
        }
        Ok(Next::Line)
    }

    fn line(&mut self, line: &str, world: &mut dyn World) -> Result<Next> {
        let (mut good, mut runs) = (true, true);
        let mut why = String::new();
        let mut words = line.split_ascii_whitespace().peekable();
        loop {
            let mut command = vec![];
            let mut then = None;
            for word in words.by_ref() {
                if word == "||" || word == "&&" || word == ";" {
                    then = Some(word);
                    break;
                }
                command.push(word);
            }
            if runs {
                self.commands += 1;
                ensure!(self.commands < COMMANDS_MAX, "the script runs in a circle at: {line}");
                let expanded: Vec<String> = command.iter().map(|word| self.expand(word)).collect();
                let expanded: Vec<&str> = expanded.iter().map(String::as_str).collect();
                good = match self.command(&expanded, world) {
                    Ok(Some(next)) => return Ok(next),
                    Ok(None) => true,
                    Err(Failed::Command(text)) => {
                        why = text;
                        if !why.is_empty() {
                            world.echo(&why);
                        }
                        false
                    }
                    Err(Failed::Run(error)) => return Err(error),
                };
            }
            runs = match then {
                Some("||") => !good,
                Some("&&") => good,
                Some(_) => true,
                None if good => return Ok(Next::Line),
                None => bail!("the script ends at {line:?}: {why}"),
            };
        }
    }

    /// Replaces `${name}` and `${name:type}` by settings.
    fn expand(&self, word: &str) -> String {
        let (mut out, mut rest) = (String::new(), word);
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else { break };
            out.push_str(before);
            let (name, kind) = name.split_once(':').unwrap_or((name, ""));
            let value = self.setting(name);
            out.push_str(&match kind {
                "hexhyp" => value.replace(':', "-"),
                "hexraw" => value.replace(':', ""),
                "uristring" => uri_string(&value),
                _ => value,
            });
            rest = behind;
        }
        out + rest
    }

    /// A setting's value; `netX` is the network card that it booted from, which is the only one here.
    fn setting(&self, name: &str) -> String {
        let name = name.replace("netX/", "net0/");
        self.settings.get(&name).cloned().unwrap_or_default()
    }

    fn command(&mut self, words: &[&str], world: &mut dyn World) -> Done {
        let Some((name, words)) = words.split_first() else { return Ok(None) };
        match *name {
            "echo" => world.echo(&words.join(" ")),
            "set" => {
                let Some((setting, value)) = words.split_first() else { return failed("set what?") };
                let setting = setting.split(':').next().unwrap_or_default().replace("netX/", "net0/");
                self.settings.insert(setting, value.join(" "));
            }
            "clear" => words.iter().for_each(|word| drop(self.settings.remove(*word))),
            "isset" => return truth(words.iter().any(|word| !word.is_empty())),
            "iseq" => return truth(matches!(words, [a, b] if a == b) || words.is_empty()),
            "inc" => {
                let [setting, by @ ..] = words else { return failed("inc what?") };
                let by: i64 = by.first().map_or(Some(1), |by| by.parse().ok()).unwrap_or(1);
                let now: i64 = self.setting(setting).parse().unwrap_or(0);
                self.settings.insert((*setting).to_owned(), (now + by).to_string());
            }
            "sleep" => {
                let seconds = words.first().and_then(|word| word.parse().ok());
                world.sleep(seconds.unwrap_or(0)).map_err(Failed::Run)?;
            }
            "goto" => return Ok(Some(Next::Goto(words.first().copied().unwrap_or_default().to_owned()))),
            "exit" => return Ok(Some(Next::End(Ended::Left))),
            "sanboot" => return failed("Boot from SAN device failed: Input/output error"),
            "imgfree" => match options(words).1.first() {
                Some(name) => self.images.retain(|image| image.name != *name),
                None => self.images.clear(),
            },
            "imgfetch" | "module" | "initrd" => drop(self.acquire(words, world)?),
            "kernel" | "imgselect" | "imgload" => {
                let name = self.acquire(words, world)?;
                self.selected = Some(name);
            }
            "imgargs" => {
                let Some((name, arguments)) = words.split_first() else { return failed("imgargs of what?") };
                self.image(name)?.arguments = arguments.join(" ");
            }
            "chain" | "imgexec" | "boot" => return self.start(name, words, world),
            "sha256sum" if self.digests => return self.digest(words),
            other => return failed(format!("{other}: command not found")),
        }
        Ok(None)
    }

    fn image(&mut self, name: &str) -> Result<&mut Image, Failed> {
        match self.images.iter_mut().find(|image| image.name == name) {
            Some(image) => Ok(image),
            None => failed(format!("{name}: no such image")),
        }
    }

    /// Downloads the image that `words` name, unless it is there already; its name.
    fn acquire(&mut self, words: &[&str], world: &mut dyn World) -> Result<String, Failed> {
        let (options, rest) = options(words);
        let Some((uri, arguments)) = rest.split_first() else { return failed("which image?") };
        let last = uri.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let name = options.get("name").copied().unwrap_or(last).to_owned();
        if !self.images.iter().any(|image| image.name == **uri) {
            let timeout = options.get("timeout").and_then(|text| text.parse().ok());
            let bytes = world.fetch(uri, timeout).map_err(fetch_failed)?;
            self.images.retain(|image| image.name != name);
            self.images.push(Image { name: name.clone(), bytes, arguments: String::new() });
        }
        let known =
            if self.images.iter().any(|image| image.name == **uri) { (*uri).to_owned() } else { name };
        if !arguments.is_empty() {
            self.image(&known)?.arguments = arguments.join(" ");
        }
        Ok(known)
    }

    fn start(&mut self, command: &str, words: &[&str], world: &mut dyn World) -> Done {
        let (_, rest) = options(words);
        if rest.is_empty() {
            let Some(name) = self.selected.clone() else { return failed("Nothing to boot") };
            return self.execute(&name).map(Some);
        }
        let before: Vec<String> = self.images.iter().map(|image| image.name.clone()).collect();
        let name = self.acquire(words, world)?;
        let next = self.execute(&name)?;
        // A script that was chained to with --autofree is not among the images that it boots with.
        if command == "chain" && !before.contains(&name) {
            self.images.retain(|image| image.name != name);
        }
        Ok(Some(next))
    }

    fn execute(&mut self, name: &str) -> Result<Next, Failed> {
        let kernel = self.image(name)?.clone();
        if kernel.bytes.starts_with(b"#!ipxe") {
            return Ok(Next::Script(String::from_utf8_lossy(&kernel.bytes).into_owned()));
        }
        if kernel.bytes.get(0x202..0x206) != Some(b"HdrS") {
            return failed(format!("{name}: Exec format error"));
        }
        let others = self.images.drain(..).filter(|image| image.name != name).collect();
        Ok(Next::End(Ended::Booted { kernel, others }))
    }

    /// `sha256sum [--set SETTING] IMAGE`: the hash goes into the setting, as bytes in hexadecimal.
    fn digest(&mut self, words: &[&str]) -> Done {
        let (options, rest) = options(words);
        let set = options.get("set").map(|name| (*name).to_owned());
        for name in rest {
            let hash = Sha256::digest(&self.image(name)?.bytes);
            let text: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Some(setting) = &set {
                self.settings.insert(setting.clone(), text.join(":"));
            }
        }
        Ok(None)
    }
}

fn fetch_failed(error: anyhow::Error) -> Failed {
    if crate::wait::told_to_stop() { Failed::Run(error) } else { Failed::Command(format!("{error:#}")) }
}

fn truth(holds: bool) -> Done {
    if holds { Ok(None) } else { failed("") }
}

/// Splits off the leading options of a command: `--name X`, `--timeout 3000`, and those without a value.
fn options<'a>(words: &[&'a str]) -> (HashMap<&'a str, &'a str>, Vec<&'a str>) {
    let (mut found, mut rest) = (HashMap::new(), vec![]);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word.strip_prefix("--").or_else(|| word.strip_prefix('-').filter(|word| word.len() == 1)) {
            Some(flag @ ("autofree" | "replace" | "a" | "r")) if rest.is_empty() => {
                found.insert(flag, "");
            }
            Some(name) if rest.is_empty() => {
                let name = match name {
                    "n" => "name",
                    "t" => "timeout",
                    other => other,
                };
                found.insert(name, words.next().unwrap_or_default());
            }
            _ => rest.push(word),
        }
    }
    (found, rest)
}

fn uri_string(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shown {
        files: HashMap<String, Vec<u8>>,
        lines: Vec<String>,
        asked: Vec<(String, Option<u64>)>,
    }

    impl World for Shown {
        fn fetch(&mut self, url: &str, timeout_ms: Option<u64>) -> Result<Vec<u8>> {
            self.asked.push((url.to_owned(), timeout_ms));
            self.files.get(url).cloned().ok_or_else(|| anyhow::anyhow!("{url}: no such file"))
        }

        fn sleep(&mut self, seconds: u64) -> Result<()> {
            self.lines.push(format!("slept {seconds}"));
            Ok(())
        }

        fn echo(&mut self, line: &str) {
            self.lines.push(line.to_owned());
        }
    }

    fn kernel() -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes
    }

    fn ipxe(version: &str, platform: &str) -> Ipxe {
        let mac = "52:54:00:00:00:01".to_owned();
        Ipxe::new(&[("net0/mac", mac), ("version", version.to_owned()), ("platform", platform.to_owned())])
    }

    fn run(ipxe: &mut Ipxe, world: &mut Shown, lines: &str) -> Result<Ended> {
        ipxe.run(&format!("#!ipxe\n{lines}"), world)
    }

    #[test]
    fn a_line_ends_the_script_when_its_last_command_fails() {
        for (line, ends) in [
            ("iseq a b", true),
            ("iseq a b ||", false),
            ("iseq a a && iseq a b ||", false),
            ("iseq a b && echo never ||", false),
            ("iseq a b || iseq a b", true),
            ("nonsense || echo missing", false),
        ] {
            let mut world = Shown::default();
            let ended = run(&mut ipxe("2.0.0", "efi"), &mut world, &format!("{line}\nexit 1"));
            assert_eq!(ended.is_err(), ends, "{line}");
            assert!(!world.lines.contains(&"never".to_owned()), "{line}");
        }
    }

    #[test]
    fn a_peer_that_is_gone_leads_to_the_server_and_a_wrong_file_too() {
        let hash: String = Sha256::digest(kernel()).iter().map(|byte| format!("{byte:02x}")).collect();
        let script = format!(
            "imgfetch --timeout 3000 --name vmlinuz http://peer/k || goto server\n\
             sha256sum --set got vmlinuz && iseq ${{got:hexraw}} {hash} && goto go || goto server\n\
             :server\nkernel --name vmlinuz http://server/k a=${{netX/mac:hexhyp}}\nboot\n\
             :go\nkernel vmlinuz a=1\nboot\n"
        );
        let mut wrong = kernel();
        wrong[7] ^= 1;
        let peers = [(None, true), (Some(wrong), true), (Some(kernel()), false)];
        for (peer, by_server) in peers {
            let mut world = Shown::default();
            world.files.insert("http://server/k".to_owned(), kernel());
            world.files.extend(peer.map(|bytes| ("http://peer/k".to_owned(), bytes)));
            let ended = run(&mut ipxe("2.0.0+", "efi"), &mut world, &script).unwrap();
            let Ended::Booted { kernel: booted, others } = ended else { panic!("{ended:?}") };
            assert_eq!((booted.bytes, others.len()), (kernel(), 0));
            let own = if by_server { "a=52-54-00-00-00-01" } else { "a=1" };
            assert_eq!(booted.arguments, own);
            assert_eq!(world.asked[0], ("http://peer/k".to_owned(), Some(3000)));
            assert_eq!(world.asked.len(), if by_server { 2 } else { 1 });
        }
        // An old one, or one for BIOS, lacks the command.
        for (version, platform) in [("1.21.1", "efi"), ("2.0.0", "pcbios")] {
            let mut world = Shown::default();
            for place in ["peer", "server"] {
                world.files.insert(format!("http://{place}/k"), kernel());
            }
            run(&mut ipxe(version, platform), &mut world, &script).unwrap();
            assert_eq!(world.asked.len(), 2, "{version} on {platform}");
        }
    }

    #[test]
    fn a_retry_waits_longer_each_time_and_a_circle_is_found() {
        let script = "set wait:int32 2\n:again\nchain http://nobody/x || goto failed\n\
                      :failed\nsleep ${wait} ||\niseq ${wait} 10 || inc wait 4\niseq ${wait} 10 && exit 1 ||\ngoto again\n";
        let mut world = Shown::default();
        assert_eq!(run(&mut ipxe("2.0.0", "efi"), &mut world, script).unwrap(), Ended::Left);
        let slept: Vec<&str> =
            world.lines.iter().map(String::as_str).filter(|line| line.starts_with("slept")).collect();
        assert_eq!(slept, ["slept 2", "slept 6"]);
        let error = run(&mut ipxe("2.0.0", "efi"), &mut world, ":a\ngoto a\n").unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
    }

    #[test]
    fn a_chained_script_is_no_image_of_the_boot() {
        let mut world = Shown::default();
        let next = "#!ipxe\nkernel http://s/vmlinuz q\ninitrd --name i http://s/loader.img\nboot\n";
        for (url, bytes) in [("n", next.into()), ("vmlinuz", kernel()), ("loader.img", vec![1])] {
            world.files.insert(format!("http://s/{url}"), bytes);
        }
        let ended =
            run(&mut ipxe("", ""), &mut world, "chain --autofree --replace http://s/n || exit").unwrap();
        let Ended::Booted { kernel, others } = ended else { panic!("{ended:?}") };
        assert_eq!((kernel.name.as_str(), others.len(), others[0].name.as_str()), ("vmlinuz", 1, "i"));
    }
}
