//! Step 2, `loader`, over HTTP: boot scripts, kernel and loader, and network boot programs for UEFI HTTP boot. Nothing
//! in a path becomes a file name: names are compared with those of the boot files. Reads the fleet's boot policies, and
//! reports to it what was sent.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use common::limits::cut;

use super::content::{Bytestore, Content, answer};
use super::public::Public;
use super::refusal::Refusal;
use super::server::Ends;
use crate::boot::script::{self, Visitor};
use crate::fleet::boot_policy::{BootPolicy, ScriptSays, Sighting};

/// The routes that machines fetch from before they have reported anything.
pub(super) fn routes() -> Router<Arc<Public>> {
    Router::new()
        .route("/boot.ipxe", get(boot_script))
        .route("/autoexec.ipxe", get(boot_script))
        .route("/boot/{kit}/{file}", get(kit_file))
        .route("/nbp/{file}", get(boot_program))
}

async fn boot_script(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let pairs = query_pairs(query.as_deref().unwrap_or_default());
    let asked = script::visitor(pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
    let (asker, ethernet) = match asked {
        Visitor::First => return Ok(as_script(script::entry(ends.local, ends.fallback()))),
        Visitor::Machine(asker, _) => (asker, true),
        Visitor::Odd(asker) => (asker, false),
    };
    let (_, policy) = public.fleet.policies().borrow().of(&asker);
    let kit = match policy {
        BootPolicy::Load => true,
        // The loader supports Ethernet only, and would search for an Ethernet interface for ever.
        BootPolicy::Unknown => public.discover && ethernet,
        BootPolicy::BootDisk | BootPolicy::Ignore => false,
    };
    let (text, says) = match (kit, policy) {
        (true, _) => (load_script(&public, ends).await?, ScriptSays::Load),
        (false, BootPolicy::Unknown) if !ethernet => {
            (script::boot_disk(ends.local, NOT_ETHERNET), ScriptSays::BootDiskNoEthernet)
        }
        (false, BootPolicy::BootDisk) => {
            (script::boot_disk(ends.local, "nothing is to be installed"), ScriptSays::BootDisk)
        }
        (false, _) => (script::ignored(ends.local), ScriptSays::BootDisk),
    };
    public.fleet.sighting(Sighting::Script { asker, address: ends.peer.ip(), says });
    Ok(as_script(text))
}

/// Shown on a machine that netboots over another network than Ethernet.
const NOT_ETHERNET: &str = "its network card has no Ethernet address, and nothing else is served";

async fn load_script(public: &Public, ends: Ends) -> Result<String, Refusal> {
    let kit = public.ask(|source| source.kit()).await?;
    let Some(kit) = kit else {
        tracing::warn!(machine = %ends.peer.ip(), "a machine asks for the loader, but there is no boot kit");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "there is no boot kit")
            .hint("`swarmboot kit import` makes one; the machine asks again"));
    };
    let load = script::Load {
        server: ends.local,
        fallback: ends.fallback(),
        key: &public.fleet.key(),
        kit: &kit,
        kernel_arguments: &public.kernel_arguments,
    };
    script::load(&load).map_err(|error| {
        tracing::error!(%error, "the boot script cannot be made");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the boot script cannot be made").because(error)
    })
}

fn as_script(text: String) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // The script changes with the machine's boot policy; a proxy in between must not cache it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn kit_file(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Path((kit, file)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let name = file.clone();
    let content = public.ask(move |source| source.kit_file(&kit, &file)).await?;
    let content = content.ok_or_else(|| Refusal::absent("no boot kit has such a file"))?;
    let fleet = public.fleet.clone();
    let told = Box::new(move |bytes| {
        fleet.sighting(Sighting::LoaderFile { address: ends.peer.ip(), file: name, bytes });
    });
    answer(&method, &headers, content, told).await
}

async fn boot_program(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let name = file.clone();
    let bytes = public.ask(move |source| source.boot_program(&file)).await?;
    let bytes = bytes.ok_or_else(|| Refusal::absent("there is no such network boot program"))?;
    let (fleet, whole) = (public.fleet.clone(), bytes.len() as u64);
    // UEFI tells an EFI program from a disk image by its media type (UEFI 2.10 section 24.7.3.1) before it
    // looks at the name.
    let media = if name.ends_with(".efi") { "application/efi" } else { "application/octet-stream" };
    let told = Box::new(move |bytes| {
        let (address, whole) = (ends.peer.ip(), bytes >= whole);
        fleet.sighting(Sighting::BootProgram { address, file: name, over: "http", bytes, whole });
    });
    answer(&method, &headers, Content { bytes: Bytestore::Memory(bytes), media, tag: None }, told).await
}

/// The entry point of `tests/fuzz`: reads a query and makes a script's asker of it.
#[cfg(fuzzing)]
pub fn try_query(query: &str) {
    let pairs = query_pairs(query);
    assert!(pairs.len() <= 16);
    let _ = script::visitor(pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
}

/// The pairs of a query, decoded: at most 16, each part cut to 256 bytes. A value that cannot be decoded is `None`,
/// because it counts that it was sent at all.
fn query_pairs(query: &str) -> Vec<(String, Option<String>)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decoded(cut(name, 256))?, decoded(cut(value, 256))))
    };
    query.split('&').take(16).filter_map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                byte[0]
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_suspicion() {
        let pairs = query_pairs("mac=52-54&serial=a%20b+c&bad=%zz&cut=%4&raw=%ff&empty=");
        let wanted = [
            ("mac", Some("52-54")),
            ("serial", Some("a b c")),
            ("bad", None),
            ("cut", None),
            ("raw", None),
            ("empty", Some("")),
        ];
        let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
        assert_eq!(pairs, wanted);
        assert_eq!(query_pairs(&"x=1&".repeat(1000)).len(), 16);
    }
}
