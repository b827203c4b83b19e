//! The manual pages, `swarmboot man DIR`, and the manual's page of commands: both from the grammar, so that they say what
//! the program does. Touches the folder that is named.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::Args;
use super::show::talk;
use crate::fault::Fault;

/// The section of commands for admins.
const SECTION: &str = "8";

/// Writes a page for the program and one for each noun into `folder`.
pub(super) fn write(folder: &Path) -> Result<(), Fault> {
    let failed = |error: &io::Error| {
        Fault::failed(format!("cannot write manual pages into {}", folder.display())).because(error)
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    for (name, page) in pages().map_err(|error| failed(&error))? {
        let path = folder.join(format!("{name}.{SECTION}"));
        std::fs::write(&path, page).map_err(|error| failed(&error))?;
        talk(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// The grammar with every default that does not depend on this host's environment.
fn grammar() -> Command {
    fn plain(command: Command) -> Command {
        let command = command.mut_args(|arg| arg.hide_env_values(true));
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        names.iter().fold(command, |command, name| command.mut_subcommand(name, plain))
    }
    let mut command = plain(Args::command()).disable_help_subcommand(true);
    command.build();
    command
}

/// The pages' names, without their section, and their text.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let command = grammar();
    let mut pages = vec![("swarmboot".to_owned(), page(&command, "swarmboot", false)?)];
    for noun in command.get_subcommands().filter(|noun| !noun.is_hide_set()) {
        let name = format!("swarmboot-{}", noun.get_name());
        pages.push((name.clone(), page(noun, &name, true)?));
    }
    Ok(pages)
}

fn page(command: &Command, name: &str, verbs: bool) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(SECTION)
        .manual("swarmboot")
        .source(format!("swarmboot {}", env!("CARGO_PKG_VERSION")));
    let mut text = vec![];
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if verbs {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            text.extend(verb_section(verb)?);
        }
    } else {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_extra_section(&mut text)?;
    text.extend(
        b".SH \"SEE ALSO\"\nThe whole manual: the page /docs of the server, and /usr/share/doc/swarmboot.\n",
    );
    Ok(text)
}

/// A verb's part of its noun's page: what its own page would have, one level lower.
fn verb_section(verb: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(verb.clone());
    let mut part = vec![];
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    man.render_options_section(&mut part)?;
    if verb.get_after_help().is_some() {
        man.render_extra_section(&mut part)?;
    }
    let part = String::from_utf8_lossy(&part).replace(".SH ", ".SS ");
    Ok(format!(".SH \"{}\"\n{part}", verb.get_name().to_uppercase()).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_noun_has_a_page_with_its_verbs() {
        let pages = pages().unwrap();
        assert!(pages.len() > 8);
        for (name, page) in &pages {
            let text = String::from_utf8(page.clone()).unwrap();
            assert!(text.contains(&format!(".TH {} 8", name.to_uppercase())), "{name}: {text}");
            for section in ["NAME", "SYNOPSIS", "OPTIONS"] {
                assert!(text.contains(&format!(".SH {section}")), "{name} lacks {section}");
            }
        }
        let deploy = pages.iter().find(|(name, _)| name == "swarmboot-deploy").unwrap();
        let text = String::from_utf8(deploy.1.clone()).unwrap();
        assert!(
            text.contains(".SH \"START\"") && text.contains("\\-\\-max") || text.contains("\\-\\-image"),
            "{text}"
        );
    }

    #[test]
    fn pages_are_written_into_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("man8")).unwrap();
        assert!(dir.path().join("man8/swarmboot-deploy.8").is_file());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(write(&file).unwrap_err().text().contains("cannot write manual pages"));
    }

    /// The manual's page of commands: the help of each.
    fn commands() -> String {
        fn part(command: &mut Command, typed: &str, text: &mut String) {
            let help = command.clone().term_width(80).render_long_help().to_string();
            let level = if typed.matches(' ').count() > 1 { "###" } else { "##" };
            let trimmed: Vec<&str> = help.lines().map(str::trim_end).collect();
            write!(text, "\n{level} {typed}\n\n```text\n{}\n```\n", trimmed.join("\n").trim_end()).unwrap();
            for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
                let typed = format!("{typed} {}", sub.get_name());
                part(sub, &typed, text);
            }
        }
        let mut text = "# Commands\n\nWhat each command takes, as `swarmboot COMMAND --help` prints it. This page is made \
                        from the program.\n"
            .to_owned();
        part(&mut grammar(), "swarmboot", &mut text);
        text
    }

    #[test]
    fn the_page_of_commands_is_what_the_program_takes() {
        same_or_write("commands.md", &commands());
    }

    /// Compares a page that is made with the one in the tree; `SWARMBOOT_UPDATE=1` writes it.
    fn same_or_write(name: &str, now: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        if std::env::var_os("SWARMBOOT_UPDATE").is_some() {
            std::fs::write(path, now).unwrap();
            return;
        }
        let then = std::fs::read_to_string(path).unwrap_or_default();
        let line = then.lines().zip(now.lines()).position(|(then, now)| then != now);
        assert!(
            then == now,
            "server/docs/{name} is not what the program says, from line {line:?}: SWARMBOOT_UPDATE=1"
        );
    }

    /// The commands of a page's blocks of `sh`, each as one line.
    fn typed(markdown: &str) -> Vec<String> {
        let blocks = markdown.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        let lines = blocks
            .flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        lines.collect()
    }

    /// The words of a line from `swarmboot` to what is no part of the command any more.
    fn command(line: &str) -> Option<Vec<String>> {
        let words = shlex::split(line)?;
        let begins = words.iter().position(|word| word == "swarmboot" || word.ends_with("/swarmboot"))?;
        let is_before =
            |word: &String| word == "sudo" || word == "|" || word.contains('=') || word == "xzcat";
        if !words[..begins].iter().all(|word| is_before(word) || words[..begins].contains(&"|".to_owned())) {
            return None;
        }
        let ends = |word: &&String| !["|", "&", "&&", ";", ">", "<"].contains(&word.as_str());
        Some(words[begins..].iter().take_while(ends).cloned().collect())
    }

    /// Every command of the manual and of the first page can be typed.
    #[test]
    fn the_manual_names_no_command_that_is_not_there() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let mut pages = vec![("README".to_owned(), std::fs::read_to_string(readme).unwrap())];
        pages.extend(
            crate::docs::names()
                .into_iter()
                .filter_map(|name| Some((name.clone(), crate::docs::text(&name)?))),
        );
        let mut tried = 0;
        for (name, text) in pages {
            for line in typed(&text) {
                let Some(words) = command(&line) else { continue };
                let taken = Args::try_parse_from(&words);
                if let Err(error) = taken {
                    let asks = !error.use_stderr();
                    assert!(asks, "{name}.md: `{line}`\n{error}");
                }
                tried += 1;
            }
        }
        assert!(tried > 40, "only {tried} commands were found");
    }

    #[test]
    fn a_command_that_is_not_there_is_found() {
        let lines =
            typed("x\n```sh\nsudo swarmboot deploy begin \\\n  --all  # no\nswarmboot status | head\n```\n");
        let commands: Vec<_> = lines.iter().filter_map(|line| command(line)).collect();
        assert_eq!(commands[0], ["swarmboot", "deploy", "begin", "--all"]);
        assert!(Args::try_parse_from(&commands[0]).is_err());
        assert_eq!(commands[1], ["swarmboot", "status"]);
        assert_eq!(command("apt-get install swarmboot"), None);
    }
}
