//! `swarmboot profile`: profiles are checked and kept on the server; the files that one names are read here. Touches those
//! files and the API.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use common::user_data::UserData;

use super::args::Profile;
use super::client::{Client, url_part};
use super::show::words::mistake_line;
use super::show::{Screen, talk};
use crate::api::shapes::{ProfileAdd, ProfileAdded, ProfileFile, ProfileShown};
use crate::fault::Fault;
use crate::fleet::profile_text::{PROFILE_BYTES_MAX, files_named};
use crate::toml_text::Severity;

pub(super) async fn run(client: &Client, screen: &Screen, command: Profile) -> Result<ExitCode, Fault> {
    match command {
        Profile::Add { file, name, replace, dry_run } => {
            return add(client, screen, &file, name, replace, dry_run).await;
        }
        Profile::List => screen.profiles(&client.get::<Vec<ProfileShown>>("/profiles").await?)?,
        Profile::Show { name } => screen.profile(&client.get(&path(&name)).await?)?,
        Profile::Remove { name } => {
            let gone: ProfileShown = client.delete_for(&path(&name)).await?;
            if screen.wants_json() {
                screen.json(&gone)?;
            } else {
                talk(&format!("removed the profile {}; what was ordered by it stays ordered", gone.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("/profiles/{}", url_part(name))
}

async fn add(
    client: &Client,
    screen: &Screen,
    file: &Path,
    name: Option<String>,
    replace: bool,
    dry_run: bool,
) -> Result<ExitCode, Fault> {
    let shown = file.display().to_string();
    let text = read(file).map_err(|error| Fault::usage(format!("cannot read {shown}")).because(&error))?;
    let text = String::from_utf8(text)
        .map_err(|error| Fault::usage(format!("{shown} is no TOML text in UTF-8")).because(&error))?;
    let name = name.or_else(|| file.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    let files = files(file, &text);
    let mut add = ProfileAdd { name: name.unwrap_or_default(), text, files, replace, dry_run: true };
    let would: ProfileAdded = client.post("/profiles", &add).await?;
    let is_wrong = would.mistakes.iter().any(|mistake| mistake.severity == Severity::Error);
    let goes_on = !is_wrong && !dry_run;
    if screen.wants_json() && !goes_on {
        screen.json(&would)?;
    } else if !screen.wants_json() {
        // With the profile on standard output, warnings are talk.
        for line in would.mistakes.iter().map(|mistake| mistake_line(&shown, mistake)) {
            if goes_on {
                talk(&line);
            } else {
                screen.line(&line)?;
            }
        }
    }
    if is_wrong {
        talk(&format!("{shown}: nothing is kept"));
        return Ok(ExitCode::from(2));
    }
    if dry_run {
        talk(&format!("{shown}: `swarmboot profile add` keeps it as {}", add.name));
        return Ok(ExitCode::SUCCESS);
    }
    add.dry_run = false;
    let added: ProfileAdded = client.post("/profiles", &add).await?;
    if screen.wants_json() {
        screen.json(&added)?;
    } else if let Some(profile) = &added.profile {
        screen.profile(profile)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that the text names, which are looked for beside `profile`.
fn files(profile: &Path, text: &str) -> BTreeMap<String, ProfileFile> {
    let folder = profile.parent().unwrap_or(Path::new(""));
    let file = |name: String| {
        let held = match read(&folder.join(&name)) {
            Ok(bytes) => ProfileFile::Holds(UserData(bytes)),
            Err(error) => ProfileFile::Unread(error.to_string()),
        };
        (name, held)
    };
    files_named(text).into_iter().map(file).collect()
}

/// The bytes of a file, and one more than may be at the most: the server says that it is too long.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    std::fs::File::open(path)?.take(PROFILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
