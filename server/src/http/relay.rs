//! What relays ask for themselves: to be enrolled, and what is new. The answer to the latter is held open until there is
//! something. Touches the fleet and the boot source.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use common::limits::{RELAY_HOLD, RELAY_REQUEST_BYTES_MAX};
use common::trust::Signed;
use common::wire::objects::Object;
use common::wire::relay::{
    BootFile, ENROL, Enrol, Enrolled, Known, News, RELAY_WIRE, STATE, SiteBoot, SiteState, StateAnswer,
    StateRequest, mark,
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::boot_source::BootSource;
use super::machine::{parse, untrusted};
use super::public::Public;
use super::refusal::Refusal;
use super::server::{Ends, Leaving};
use crate::boot::from_peers::Hashed;
use crate::fleet::FleetError;
use crate::fleet::relays::{Heard, NotEnrolled, RelayView};
use crate::tailor::PciId;

/// How old the nonce of a request may be when it arrives: that of an answer is used at once.
const NONCE_LIFE: SignedDuration = SignedDuration::from_mins(2);

/// Changes that come within this time are told in one answer: an order for thirty machines is thirty of them.
const TOGETHER: Duration = Duration::from_millis(200);

/// The routes of relays.
pub(super) fn routes() -> Router<Arc<Public>> {
    Router::new().route(ENROL, post(enrol)).route(STATE, post(state))
}

async fn enrol(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<Enrolled>>, Refusal> {
    let signed: Signed<Enrol> = read(&public, ends, &headers, body, "enrolment of a relay").await?;
    let enrol = signed.open_self_signed(|enrol| enrol.relay).map_err(untrusted)?;
    let enrolled = public.fleet.enrol_relay(enrol, signed.digest()).await?;
    enrolled.map(Json).map_err(|refused| {
        tracing::warn!(peer = %ends.peer.ip(), cause = %refused, "a relay was not enrolled");
        not_enrolled(&refused)
    })
}

fn not_enrolled(refused: &NotEnrolled) -> Refusal {
    let (status, hint) = match refused {
        NotEnrolled::Wire { .. } => {
            (StatusCode::BAD_REQUEST, "give the relay the server's version of swarmboot")
        }
        NotEnrolled::Twice(_) => {
            (StatusCode::CONFLICT, "it needs no other word; `swarmboot relay revoke` ends the enrolment")
        }
        NotEnrolled::Unknown | NotEnrolled::Used | NotEnrolled::Expired(_) | NotEnrolled::Revoked => {
            (StatusCode::FORBIDDEN, "`swarmboot relay invite` on the server makes a new one")
        }
    };
    Refusal::new(status, refused.to_string()).hint(hint)
}

async fn state(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Extension(leaving): Extension<Leaving>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<StateAnswer>>, Refusal> {
    let signed: Signed<StateRequest> = read(&public, ends, &headers, body, "request of a relay").await?;
    let request = signed.open_self_signed(|request| request.relay).map_err(untrusted)?;
    let given = public.fleet.given(&request.nonce);
    let lately = |given: &Timestamp| Timestamp::now().duration_since(*given) <= NONCE_LIFE;
    let given = given.filter(lately).ok_or_else(|| {
        Refusal::new(StatusCode::CONFLICT, "the request bears no nonce that this server gave out lately")
            .hint("`GET /v1/identity` gives one")
    })?;
    let (relay, known) = (request.relay, request.known);
    let news = match public.fleet.hear_relay(request, given, ends.peer.ip()).await? {
        Heard::Unknown => {
            let text = format!("no relay with the key {} is enrolled here", relay.short());
            return Err(Refusal::new(StatusCode::FORBIDDEN, text)
                .hint("`swarmboot relay invite` on the server gives a word for it"));
        }
        Heard::Replayed => {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "a request with this nonce, or a later one, came before",
            )
            .hint("`GET /v1/identity` gives another nonce"));
        }
        Heard::Revoked => News::Revoked,
        Heard::Version => News::Version { server: env!("CARGO_PKG_VERSION").to_owned(), wire: RELAY_WIRE },
        Heard::Taken { turn, .. } => tokio::select! {
            news = held(&public, &relay, turn, known, RELAY_HOLD) => news?,
            // The server stops: nothing is new, and the relay asks again until it is back.
            () = leaving.0.cancelled() => News::State(Box::default()),
        },
    };
    Ok(Json(public.fleet.answer_relay(signed.digest(), news)))
}

/// Waits for news of the relay whose request has the number `turn`, for `hold` at the longest.
pub(super) async fn held(
    public: &Public,
    relay: &common::trust::PublicKey,
    turn: u64,
    known: Known,
    hold: Duration,
) -> Result<News, Refusal> {
    let until = Instant::now() + hold;
    let mut table = public.fleet.relays();
    let mut made: Option<(Arc<Vec<PciId>>, SiteBoot)> = None;
    let mut is_new = false;
    loop {
        let view = table.borrow_and_update().of(relay).cloned();
        let Some(view) = view.filter(|view| !view.is_revoked) else { return Ok(News::Revoked) };
        let boot = match made.take().filter(|(nics, _)| *nics == view.nics) {
            Some((_, boot)) => boot,
            None => {
                let nics = Arc::clone(&view.nics);
                public.ask(move |source| site_boot(source, &nics)).await?
            }
        };
        made = Some((Arc::clone(&view.nics), boot.clone()));
        let boot =
            SiteBoot { name: view.name.clone(), site: view.site.clone(), discover: public.discover, ..boot };
        let news = lacking(&view, boot, known);
        let is_over = view.turn != turn || Instant::now() >= until;
        if is_over || (news != SiteState::default() && is_new) {
            return Ok(News::State(Box::new(news)));
        }
        if news != SiteState::default() {
            // What else changes together with this is told together with it.
            is_new = true;
            sleep(TOGETHER).await;
            continue;
        }
        // The sender is dropped when the server stops: then there is nothing to wait for.
        if let Ok(Err(_)) = timeout_at(until, table.changed()).await {
            return Err(Refusal::from(FleetError::Stopping));
        }
    }
}

/// What machines boot with, and the small loaders of a site's NICs. Blocks: one that was not built before takes seconds.
fn site_boot(source: &dyn BootSource, nics: &[PciId]) -> SiteBoot {
    let mut boot = source.site_boot();
    let Some(kit) = source.kit() else { return boot };
    let mut small: Vec<BootFile> = vec![];
    for nic in nics {
        let name = source.loader_for(Some(*nic));
        let path = format!("/boot/{kit}/{name}");
        // The general one, for a NIC that the kit has no driver for, or one that two NICs share.
        if boot.files.iter().chain(&small).any(|file| file.path == path) {
            continue;
        }
        if let Some((_, Hashed { object: Object { hash, bytes }, .. })) = source.hashed(&kit, &name) {
            small.push(BootFile { name, hash, bytes, path });
        }
    }
    // Behind the kernel and before the general loader: the order in which a relay fetches them.
    let at = boot.files.len().min(1);
    boot.files.splice(at..at, small);
    boot
}

/// The parts of the state that the relay does not have.
fn lacking(view: &RelayView, boot: SiteBoot, known: Known) -> SiteState {
    SiteState {
        boot: (known.boot != Some(mark(&boot))).then_some(boot),
        machines: (known.machines != Some(mark(&*view.machines))).then(|| (*view.machines).clone()),
        work: (known.work != Some(mark(&*view.work))).then(|| (*view.work).clone()),
    }
}

async fn read<T: common::trust::Signable>(
    public: &Public,
    ends: Ends,
    headers: &HeaderMap,
    body: Body,
    what: &'static str,
) -> Result<Signed<T>, Refusal> {
    let taken = public.intake.read(ends.peer.ip(), headers, body, RELAY_REQUEST_BYTES_MAX, what).await?;
    let _turn = public.parsers.acquire().await.map_err(|_| Refusal::from(FleetError::Stopping))?;
    parse(&taken.bytes, what)
}
