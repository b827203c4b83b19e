//! `swarmboot backup` asks the server for one; `restore` needs none. Touches the admin socket, the backup and the state
//! folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{Backup, Restore};
use super::client::Client;
use super::show::{Screen, talk};
use crate::api::shapes::ImageShown;
use crate::backup::{self, BackupError, Restored};
use crate::fault::Fault;

pub(super) async fn write(client: &Client, command: Backup) -> Result<ExitCode, Fault> {
    let images = !command.without_images;
    let missing: Vec<ImageShown> = if images { vec![] } else { client.get("/images").await? };
    let path = format!("/backup?images={images}");
    if command.file == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Fault::usage("a backup is no text for a terminal").hint("swarmboot backup FILE"));
        }
        let mut out = io::stdout().lock();
        client.download_posted(&path, |piece| put(&mut out, &piece, Path::new("standard output"))).await?;
        out.flush().map_err(|error| unwritten(Path::new("standard output"), &error))?;
    } else {
        let part = part_of(&command.file);
        let written = to_file(client, &path, &part).await;
        if let Err(fault) = written {
            drop(fs::remove_file(&part));
            return Err(fault);
        }
        fs::rename(&part, &command.file).map_err(|error| unwritten(&command.file, &error))?;
    }
    talk("it holds the server's keys: keep it where only its admins can read it");
    for image in missing {
        talk(&format!("without its chunks: the image {}; after a restore add it again", image.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

async fn to_file(client: &Client, path: &str, part: &Path) -> Result<(), Fault> {
    let failed = |error: io::Error| unwritten(part, &error);
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let out = out.as_mut().map_err(|error| unwritten(part, error))?;
    // One that was there keeps its mode otherwise.
    out.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    client.download_posted(path, |piece| put(out, &piece, part)).await?;
    out.sync_all().map_err(failed)
}

fn put(out: &mut impl Write, piece: &[u8], to: &Path) -> Result<(), Fault> {
    out.write_all(piece).map_err(|error| unwritten(to, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Fault {
    Fault::failed(format!("cannot write {}", path.display())).because(error)
}

pub(super) async fn restore(screen: &Screen, command: Restore) -> Result<ExitCode, Fault> {
    let Restore { file, state, force } = command;
    let place = state.clone();
    let work = move || -> Result<Restored, Fault> {
        let failed = |error: BackupError| {
            let hint = error.hint();
            Fault::failed("nothing was restored").because(&error).hint(hint)
        };
        if file == Path::new("-") {
            return backup::restore(io::stdin().lock(), &state, force).map_err(failed);
        }
        let input = File::open(&file)
            .map_err(|error| Fault::failed(format!("cannot read {}", file.display())).because(&error))?;
        backup::restore(io::BufReader::with_capacity(1 << 20, input), &state, force).map_err(failed)
    };
    let restored = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::failed("the restore ended early").because(&error))??;
    screen.restored(&restored, &place)?;
    if let Some(aside) = &restored.aside {
        talk(&format!("what was there is in {}", aside.display()));
    }
    if let Some(configuration) = &restored.configuration {
        talk(&format!("the configuration is in {}: compare it with yours", configuration.display()));
    }
    if !restored.head.images {
        talk("the images have no chunks: add them again, `swarmboot image list` names them");
    }
    for path in &restored.gone {
        talk(&format!("was removed while the backup was written: {path}"));
    }
    Ok(ExitCode::SUCCESS)
}
