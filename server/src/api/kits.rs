//! The admin's routes for boot kits, and the conversion of kits and their errors to shapes. Touches the kits.

use axum::Extension;
use axum::response::Response;
use common::causes;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::admin::{Answered, JsonBody, Nothing, Path, answered, bounded};
use super::caller::{Asked, check_local};
use super::shapes::{KitImport, KitShown, KitSource, TaskLine};
use super::tasks::{ProgressSender, task};
use crate::boot::Wanted;
use crate::http::Door;
use crate::http::refusal::Refusal;
use crate::kit::{KitError, KitInfo, Progress, Source};

/// Lists the boot kits.
#[utoipa::path(get, path = "/kits", responses((status = 200, description = "All boot kits", body = Vec<KitShown>)))]
pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<KitShown>> {
    answered(move || {
        let kits = admin.kits.store().list().map_err(|error| refused(&error))?;
        Ok(kits.into_iter().map(shown).collect())
    })
    .await
}

/// Shows a boot kit.
#[utoipa::path(get, path = "/kits/{name}", params(("name" = String, Path, description = "The kit's name")), responses((status = 200, description = "The kit", body = KitShown)))]
pub(super) async fn show(Asked(admin): Asked, Path(name): Path<String>) -> Answered<KitShown> {
    answered(move || {
        let info = admin.kits.store().info(&bounded(name)?).map_err(|error| refused(&error))?;
        Ok(shown(info))
    })
    .await
}

/// Imports a boot kit.
///
/// Sources other than the server's own system are files of its host, and named over its admin socket only.
#[utoipa::path(post, path = "/kits", request_body = KitImport, responses((status = 200, description = "JSON lines: progress and notes, and at last the kit or the failure", body = TaskLine<KitShown>, content_type = "application/x-ndjson")))]
pub(super) async fn import(
    Asked(admin): Asked,
    Extension(door): Extension<Door>,
    JsonBody(import): JsonBody<KitImport>,
) -> Result<Response, Refusal> {
    if import.sources.iter().any(|source| !matches!(source, KitSource::Host)) {
        check_local(door, "a source of a kit")?;
    }
    Ok(task(admin.errands.place()?, move |sender: &mut ProgressSender<KitShown>| {
        let info = admin.kits.import(wanted(import), &mut |so_far| {
            let (done, total, text) = import_words(so_far);
            sender.progress(done, total, text);
        });
        let shown = shown(info.map_err(|error| refused(&error))?);
        for missing in &shown.missing {
            sender.note(missing.clone());
        }
        tracing::info!(kit = shown.name, kernel = shown.kernel, "a boot kit was imported");
        admin.fleet.note_blocking(format!("imported the boot kit {}", shown.name));
        Ok(shown)
    }))
}

/// Removes a boot kit.
#[utoipa::path(delete, path = "/kits/{name}", params(("name" = String, Path, description = "The kit's name")), responses((status = 200, description = "It is removed", body = Nothing)))]
pub(super) async fn remove(Asked(admin): Asked, Path(name): Path<String>) -> Answered<Nothing> {
    answered(move || {
        let name = bounded(name)?;
        admin.kits.remove(&name).map_err(|error| refused(&error))?;
        admin.fleet.note_blocking(format!("removed the boot kit {name}"));
        Ok(Nothing {})
    })
    .await
}

/// An import as the boot kits take it.
fn wanted(import: KitImport) -> Wanted {
    let source = |source| match source {
        KitSource::Host => Source::Host,
        KitSource::Folder(path) | KitSource::Deb(path) | KitSource::Ipxe(path) => Source::Path(path),
    };
    Wanted {
        name: import.name,
        sources: import.sources.into_iter().map(source).collect(),
        kernel: import.kernel,
    }
}

/// An import's progress: units done, units in all where known, and what is being done.
fn import_words(progress: Progress) -> (u64, Option<u64>, String) {
    match progress {
        Progress::Unpacking { package, bytes } => (bytes, None, format!("unpacking {package}")),
        Progress::Modules { done } => (done as u64, None, "modules read".to_owned()),
        Progress::Compressing { done, total } => (done, Some(total), "compressing the loader".to_owned()),
        Progress::Syncing => (0, None, "waiting for the disk".to_owned()),
    }
}

/// An error of the boot kits as the body of an error response.
fn refused(error: &KitError) -> Refused {
    Refused { error: error.to_string(), cause: causes::behind(error), hint: error.hint() }
}

/// A boot kit as a shape.
fn shown(info: KitInfo) -> KitShown {
    let imported = i64::try_from(info.imported_at).ok().and_then(|at| Timestamp::from_second(at).ok());
    KitShown {
        name: info.name,
        kernel: info.kernel,
        architecture: info.architecture,
        in_use: info.default,
        imported: imported.unwrap_or_default(),
        modules: info.modules as u64,
        firmware_files: info.firmware as u64,
        boot_programs: info.boot_programs,
        verifies: info.verifies,
        ipxe: info.ipxe,
        kernel_bytes: info.kernel_bytes,
        loader_bytes: info.loader_bytes,
        missing: info.warnings,
    }
}
