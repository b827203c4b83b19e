//! Step 2, `loader`, over HTTP: boot scripts, kernel and loader, and network boot programs for UEFI HTTP boot. Nothing
//! in a path becomes a file name: names are compared with those of the boot files. Reads the fleet's boot policies, and
//! reports to it what was sent.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use common::id::MachineId;

use super::content::{Bytestore, Content, answer};
use super::objects::take_faults;
use super::public::Public;
use super::query::query_pairs;
use super::refusal::Refusal;
use super::server::Ends;
use crate::boot::from_peers::{self, Check, FromPeers, Hashed};
use crate::boot::ipxe::Ipxe;
use crate::boot::script::{self, Visitor};
use crate::fleet::boot_policy::{Asker, BootPolicy, ScriptSays, Sighting};
use crate::peers::{Advice, Asking, Who};

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
    let (asker, ipxe, ethernet) = match asked {
        Visitor::First => return Ok(as_script(script::entry(ends.local, ends.fallback()))),
        Visitor::Machine(asker, ipxe) => (asker, ipxe, true),
        Visitor::Odd(asker) => (asker, Ipxe::default(), false),
    };
    let (machine, policy) = public.fleet.policies().borrow().of(&asker);
    let kit = match policy {
        BootPolicy::Load => true,
        // The loader supports Ethernet only, and would search for an Ethernet interface for ever.
        BootPolicy::Unknown => public.discover && ethernet,
        BootPolicy::BootDisk | BootPolicy::Ignore => false,
    };
    // Told now, because the answer may take long: nobody shall think meanwhile that its boot program never ran.
    public.fleet.sighting(Sighting::AsksScript { asker: asker.clone(), address: ends.peer.ip() });
    let (text, says) = match (kit, policy) {
        (true, _) => load_script(&public, &Booter { ends, asker: &asker, machine, ipxe: &ipxe }).await?,
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

/// The files that a machine is to boot, and who asks for them.
struct Booter<'a> {
    ends: Ends,
    asker: &'a Asker,
    machine: Option<MachineId>,
    ipxe: &'a Ipxe,
}

async fn load_script(public: &Public, booter: &Booter<'_>) -> Result<(String, ScriptSays), Refusal> {
    let Booter { ends, asker, ipxe, .. } = *booter;
    let nic = ipxe.nic.filter(|_| asker.mac.is_some_and(|mac| public.gives_small_loader(mac)));
    let named = public.ask(move |source| Some((source.kit()?, source.loader_for(nic)))).await?;
    let Some((kit, loader)) = named else {
        tracing::warn!(machine = %ends.peer.ip(), "a machine asks for the loader, but there is no boot kit");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "there is no boot kit")
            .hint("`swarmboot kit import` makes one; the machine asks again"));
    };
    let source = neighbours(public, booter, &kit, &loader).await?;
    let from_peers = match &source {
        Source::Wait(seconds) => {
            return Ok((script::wait(ends.local, ends.fallback(), *seconds), ScriptSays::Wait));
        }
        Source::Server => None,
        Source::Peers { peers, files: (kernel, loader), check } => {
            Some(FromPeers { peers, kernel: *kernel, loader: *loader, check: *check })
        }
    };
    let load = script::Load {
        server: ends.local,
        fallback: ends.fallback(),
        key: &public.fleet.key(),
        kit: &kit,
        loader: &loader,
        kernel_arguments: &public.kernel_arguments,
        from_peers,
    };
    let text = script::load(&load).map_err(|error| {
        tracing::error!(%error, "the boot script cannot be made");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the boot script cannot be made").because(error)
    })?;
    Ok((text, ScriptSays::Load))
}

/// Where a machine takes kernel and loader from.
enum Source {
    Server,
    Peers { peers: Vec<SocketAddr>, files: (Hashed, Hashed), check: Check },
    Wait(u32),
}

async fn neighbours(
    public: &Public,
    booter: &Booter<'_>,
    kit: &str,
    loader: &str,
) -> Result<Source, Refusal> {
    let Booter { ends, asker, machine, ipxe } = *booter;
    let address = ends.peer.ip();
    // A relay that passed the request on has everything, and is on the machine's own LAN.
    let site = public.peers.site(address).filter(|_| ends.local.ip() == ends.own.ip());
    let Some(site) = site else { return Ok(Source::Server) };
    let (kit, loader) = (kit.to_owned(), loader.to_owned());
    let Some(files) = public.ask(move |source| source.hashed(&kit, &loader)).await? else {
        return Ok(Source::Server);
    };
    let check = from_peers::check(public.peers.mode(), ipxe);
    if let Err(Some(why)) = check {
        public.unchecked.call_once(|| {
            tracing::info!(
                machine = %address,
                why = why.words(),
                "a machine takes kernel and loader from the server and not from a neighbour, which could give it others; \
                 `boot_peers = \"any\"` lets such machines trust their neighbours (said once)"
            );
        });
    }
    let (ordered, expected) = {
        let policies = public.fleet.policies();
        let policies = policies.borrow();
        (policies.due.comes(machine, &site), policies.due.expected(&site))
    };
    let asking = Asking {
        who: Who { mac: asker.mac, address },
        files: &[files.0.object, files.1.object],
        may_share: check.is_ok(),
        ordered,
        expected,
        rate: public.peers.rate(&site),
    };
    Ok(match (public.peers.ask(&site, &asking), check) {
        (Advice::Wait(seconds), _) => Source::Wait(seconds),
        (Advice::Peers(peers), Ok(check)) => Source::Peers { peers, files, check },
        (Advice::Server | Advice::Peers(_), _) => Source::Server,
    })
}

/// A response with a script for iPXE.
pub(crate) fn as_script(text: String) -> Response {
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
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    take_faults(&public, ends, query.as_deref());
    let name = file.clone();
    let content = public.ask(move |source| source.kit_file(&kit, &file)).await?;
    let content = content.ok_or_else(|| Refusal::absent("no boot kit has such a file"))?;
    let (fleet, peers) = (public.fleet.clone(), public.peers.clone());
    let told = Box::new(move |bytes| {
        peers.sign(ends.peer.ip());
        fleet.sighting(Sighting::LoaderFile { address: ends.peer.ip(), file: name, bytes });
    });
    let response = answer(&method, &headers, content, told).await?;
    if method == Method::GET {
        public.fleet.sighting(Sighting::LoaderFileBegun { address: ends.peer.ip() });
    }
    Ok(response)
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
