//! `swarmboot image`: adds, lists, verifies, exports and removes images. Touches the admin socket, standard input and
//! output, and the file of an export.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::args::Image;
use super::client::Client;
use super::kit::absolute;
use super::progress::Progress;
use super::show::{Screen, talk};
use crate::api::shapes::{ImageAdd, ImageRemoved, ImageShown, ImageVerified, TaskLine, UploadOrder};
use crate::fault::Fault;

/// Bytes of an upload that are read at once.
const PIECE_BYTES: usize = 256 << 10;

pub(super) async fn run(client: &Client, screen: &Screen, command: Image) -> Result<ExitCode, Fault> {
    match command {
        Image::Add { name, file, sector_size, no_table } => {
            let image = add(client, name, &file, sector_size, no_table).await?;
            screen.image(&image)?;
        }
        Image::List => screen.images(&client.get::<Vec<ImageShown>>("/images").await?)?,
        Image::Show { name } => screen.image(&client.get(&format!("/images/{name}")).await?)?,
        Image::Verify { name } => return verify(client, screen, &name).await,
        Image::Export { name, file } => export(client, &name, &file).await?,
        Image::Stage(stage) => super::relay::stage(client, screen, stage).await?,
        Image::Remove { name } => {
            let removed: ImageRemoved = client.delete_for(&format!("/images/{name}")).await?;
            if !removed.profiles.is_empty() {
                talk(&format!("note: without an image now: the profiles {}", removed.profiles.join(", ")));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(
    client: &Client,
    name: String,
    file: &Path,
    sector: Option<u32>,
    no_table: bool,
) -> Result<ImageShown, Fault> {
    let is_sent = !client.is_local();
    let mut progress = Progress::new(if is_sent { "sending" } else { "reading" }, None);
    let on_line = |line: TaskLine<ImageShown>| match line {
        TaskLine::Progress { done, total, text } => progress.set(done, total, &text),
        TaskLine::Note(text) => progress.note(&text),
        TaskLine::Done(_) | TaskLine::Failed(_) => {}
    };
    let is_stream = file == Path::new("-");
    if is_sent {
        let input = if is_stream { standard_input()? } else { opened(file).await? };
        let order = UploadOrder { name, bytes: None, sector_bytes: sector, no_table };
        return client.send_image(order, input, on_line).await;
    }
    if is_stream {
        let sector = sector.map(|bytes| format!("&sector_bytes={bytes}")).unwrap_or_default();
        let query = format!("?no_table={no_table}{sector}");
        let pieces = ReaderStream::with_capacity(standard_input()?, PIECE_BYTES);
        return client.upload(&format!("/images/{name}{query}"), pieces.boxed(), on_line).await;
    }
    let order = ImageAdd { name, path: absolute(file)?, sector_bytes: sector, no_table };
    client.task("/images", &order, on_line).await
}

async fn opened(file: &Path) -> Result<tokio::fs::File, Fault> {
    let failed = |error| Fault::failed(format!("cannot read {}", file.display())).because(&error);
    tokio::fs::File::open(file).await.map_err(failed)
}

/// Standard input as a file: tokio reads files on blocking threads, so a slow pipe blocks no task.
fn standard_input() -> Result<tokio::fs::File, Fault> {
    let handle = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Fault::failed("cannot read standard input").because(&error))?;
    Ok(tokio::fs::File::from_std(handle.into()))
}

async fn verify(client: &Client, screen: &Screen, name: &str) -> Result<ExitCode, Fault> {
    let mut progress = Progress::new("verifying", None);
    let found = client
        .task::<ImageVerified>(&format!("/images/{name}/verify"), &(), |line| match line {
            TaskLine::Progress { done, total, text } => progress.set(done, total, &text),
            TaskLine::Note(text) => progress.note(&text),
            TaskLine::Done(_) | TaskLine::Failed(_) => {}
        })
        .await?;
    drop(progress);
    screen.json(&found)?;
    if found.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (damaged, images) = (found.damaged.len(), found.affected.join(", "));
    Err(Fault::failed(format!(
        "{damaged} of {} chunks of {name} are damaged; they are in {images}",
        found.chunks
    ))
    .hint("add the image again from its source: chunks that are damaged are replaced"))
}

async fn export(client: &Client, name: &str, file: &Path) -> Result<(), Fault> {
    let image: ImageShown = client.get(&format!("/images/{name}")).await?;
    let mut progress = Progress::new("exporting", Some(image.bytes));
    let mut out = Export::create(file)?;
    let mut done = 0;
    client
        .download(&format!("/images/{name}/export"), |piece| {
            done += piece.len() as u64;
            progress.set(done, Some(image.bytes), "");
            out.write(&piece)
        })
        .await?;
    if done != image.bytes {
        return Err(Fault::failed(format!("the export broke off after {done} of {} bytes", image.bytes))
            .hint("see `swarmboot image verify`, and the server's own log"));
    }
    out.finish()
}

/// The destination of an export: standard output, or a file that gets its name only when it is complete.
enum Export {
    Stdout,
    File { file: std::fs::File, part: PathBuf, name: PathBuf },
}

impl Export {
    fn create(path: &Path) -> Result<Self, Fault> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        if path.exists() {
            return Err(Fault::usage(format!("{} is there already", path.display()))
                .hint("name another file, or remove it first"));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = std::fs::File::create(&part)
            .map_err(|error| Fault::failed(format!("cannot create {}", part.display())).because(&error))?;
        Ok(Self::File { file, part, name: path.to_owned() })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let written = match self {
            Self::Stdout => std::io::stdout().write_all(piece),
            Self::File { file, .. } => file.write_all(piece),
        };
        written.map_err(|error| Fault::failed("cannot write the export").because(&error))
    }

    fn finish(self) -> Result<(), Fault> {
        let Self::File { file, part, name } = self else { return Ok(()) };
        file.sync_all()
            .and_then(|()| std::fs::rename(&part, &name))
            .map_err(|error| Fault::failed("cannot finish the export").because(&error))?;
        talk(&format!("wrote {}", name.display()));
        Ok(())
    }
}
