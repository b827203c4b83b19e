//! `swarmboot kit`: imports, lists and removes boot kits. Touches the admin socket.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::Kit;
use super::client::Client;
use super::progress::Progress;
use super::show::Screen;
use crate::api::shapes::{KitImport, KitShown, KitSource, TaskLine};
use crate::fault::Fault;

pub(super) async fn run(client: &Client, screen: &Screen, command: Kit) -> Result<ExitCode, Fault> {
    match command {
        Kit::Import { name, deb, folder, ipxe, host, kernel } => {
            let names_files = !(deb.is_empty() && folder.is_empty() && ipxe.is_none());
            if names_files && !client.is_local() {
                return Err(Fault::usage("a kit is made of files on the server's host")
                    .hint("run `swarmboot kit import` there"));
            }
            let import = KitImport { name, kernel, sources: sources(deb, folder, ipxe, host)? };
            let mut progress = Progress::new("importing", None);
            let kit = client
                .task::<KitShown>("/kits", &import, |line| match line {
                    TaskLine::Progress { done, total, text } => progress.set(done, total, &text),
                    TaskLine::Note(text) => progress.note(&text),
                    TaskLine::Done(_) | TaskLine::Failed(_) => {}
                })
                .await?;
            drop(progress);
            screen.kits(&[kit])?;
        }
        Kit::List => screen.kits(&client.get::<Vec<KitShown>>("/kits").await?)?,
        Kit::Show { name } => screen.kits(&[client.get(&format!("/kits/{name}")).await?])?,
        Kit::Remove { name } => client.delete(&format!("/kits/{name}")).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn sources(
    deb: Vec<PathBuf>,
    folder: Vec<PathBuf>,
    ipxe: Option<PathBuf>,
    host: bool,
) -> Result<Vec<KitSource>, Fault> {
    let mut sources = vec![];
    for path in &folder {
        sources.push(KitSource::Folder(absolute(path)?));
    }
    for path in &deb {
        sources.push(KitSource::Deb(absolute(path)?));
    }
    if host || sources.is_empty() {
        sources.push(KitSource::Host);
    }
    // Last, so that its programs are taken and not another source's.
    if let Some(path) = &ipxe {
        sources.push(KitSource::Ipxe(absolute(path)?));
    }
    Ok(sources)
}

/// The absolute path of an existing file, because the server's current folder differs from the admin's.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    path.canonicalize()
        .map_err(|error| Fault::failed(format!("cannot read {}", path.display())).because(&error))
}
