//! Requests that a relay passes on for machines of its site: the header is checked, and the machine is then seen at its
//! own address. A layer over all routes of machines: a request without the header costs nothing. Touches the fleet's
//! table of relays.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use common::trust::Signed;
use common::wire::relay::{VIA_HEADER, Via};
use jiff::{SignedDuration, Timestamp};

use super::public::Public;
use super::refusal::Refusal;
use super::server::Ends;

/// How old the nonce of a header may be. A relay gets a new one with each answer, which is once in a minute.
const LIFE: SignedDuration = SignedDuration::from_mins(15);

/// The longest header, in bytes: one has about 600.
const HEADER_BYTES_MAX: usize = 2048;

/// Why a request that claims to come from a relay is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NotPassed {
    #[error("the header {VIA_HEADER} cannot be read: {0}")]
    Form(String),
    #[error("the header {VIA_HEADER} is not signed by the relay that it names")]
    Signature,
    #[error("no relay with the key {0} is enrolled here")]
    Unknown(String),
    #[error("the relay {0} was revoked")]
    Revoked(String),
    #[error("the relay {relay} passes on a request of {machine}, which is not at its site {site}")]
    Elsewhere { relay: String, machine: String, site: String },
    #[error("the header {VIA_HEADER} is of another request")]
    Other,
    #[error("the header {VIA_HEADER} bears no nonce that this server gave out lately")]
    Stale,
    #[error("the header {VIA_HEADER} was sent before")]
    Again,
}

impl NotPassed {
    fn status(&self) -> StatusCode {
        match self {
            Self::Form(_) => StatusCode::BAD_REQUEST,
            // As for a report: with a new nonce it is taken.
            Self::Stale => StatusCode::CONFLICT,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

/// Lets a request of a relay be seen as its machine's.
pub(super) async fn layer(
    State(public): State<Arc<Public>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if request.headers().contains_key(VIA_HEADER) {
        let ends = request.extensions().get::<Ends>().copied();
        let ends = ends.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "a request from nowhere"))?;
        let via = checked(&public, &request).map_err(|refused| {
            let why = refused.to_string();
            if public.complaints.passed_on_refused(ends.peer.ip(), &why) {
                public.fleet.passed_on_refused(ends.peer.ip(), why.clone());
            }
            Refusal::new(refused.status(), why)
                .hint("the machine can ask the server itself; `swarmboot relay list` shows the relays")
        })?;
        let port = ends.peer.port();
        let seen = Ends { peer: (via.machine.to_canonical(), port).into(), local: via.local, own: ends.own };
        request.extensions_mut().insert(seen);
    }
    Ok(next.run(request).await)
}

fn checked(public: &Public, request: &Request) -> Result<Via, NotPassed> {
    let header = request.headers().get(VIA_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
    if header.len() > HEADER_BYTES_MAX {
        return Err(NotPassed::Form(format!("it has {} bytes", header.len())));
    }
    let signed: Signed<Via> =
        serde_json::from_slice(header).map_err(|error| NotPassed::Form(error.to_string()))?;
    let via = signed.open_self_signed(|via| via.relay).map_err(|_| NotPassed::Signature)?;
    let table = public.fleet.relays();
    let table = table.borrow();
    let relay = table.of(&via.relay).ok_or_else(|| NotPassed::Unknown(via.relay.short()))?;
    if relay.is_revoked {
        return Err(NotPassed::Revoked(relay.name.clone()));
    }
    if !table.is_at(relay, via.machine) {
        return Err(NotPassed::Elsewhere {
            relay: relay.name.clone(),
            machine: via.machine.to_string(),
            site: relay.site.clone(),
        });
    }
    let target = request.uri().path_and_query().map(|target| target.as_str()).unwrap_or_default();
    if via.request != Via::request(request.method().as_str(), target) {
        return Err(NotPassed::Other);
    }
    let now = Timestamp::now();
    let given = public.fleet.given(&via.nonce).filter(|given| now.duration_since(*given) <= LIFE);
    let given = given.ok_or(NotPassed::Stale)?;
    if !public.passed.lock().entry(via.relay).or_default().take(given, via.count) {
        return Err(NotPassed::Again);
    }
    Ok(via)
}
