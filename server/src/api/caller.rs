//! Who asks: a user of this host at the admin socket, who may do everything, or whoever shows a token at the TLS port.
//! What they may do is not decided here, but by each route's [`Need`]. Touches the table of tokens and the clock.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use common::id::Hash;
use common::limits::WRONG_TOKEN_PAUSE;
use futures::StreamExt as _;
use hyper::body::Body as _;
use jiff::Timestamp;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::admin::Admin;
use super::shapes::{Caller, Role, Scope};
use crate::fleet::token::TokenTable;
use crate::http::Door;
use crate::http::refusal::Refusal;

/// The longest token that is looked at, in bytes; ours have 68.
const TOKEN_MAX: usize = 256;
/// The longest key of an order, in bytes.
const ORDER_KEY_MAX: usize = 128;

/// What a route needs of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// The least role.
    pub(super) role: Role,
    /// Whether somebody whose scope is not everything may ask: then the route shows and changes only what is in it.
    pub(super) scoped: bool,
}

impl Need {
    /// For somebody of this role, with any scope.
    pub(super) const fn part(role: Role) -> Self {
        Self { role, scoped: true }
    }

    /// For somebody of this role whose scope is everything.
    pub(super) const fn whole(role: Role) -> Self {
        Self { role, scoped: false }
    }

    /// Whether `caller` may; a refusal that says what they lack where not.
    pub(super) fn check(self, caller: &Caller) -> Result<(), Refusal> {
        if caller.role < self.role {
            let error =
                format!("this needs the role {}, and {} has the role {}", self.role, caller.who, caller.role);
            return Err(
                Refusal::new(StatusCode::FORBIDDEN, error).hint("ask an admin for a token that allows it")
            );
        }
        if !self.scoped && !caller.scope.is_everything() {
            let error = format!("this is about the whole server, and {} is for {}", caller.who, caller.scope);
            return Err(Refusal::new(StatusCode::FORBIDDEN, error)
                .hint("ask somebody whose token has no sites and labels"));
        }
        Ok(())
    }
}

/// Finds out who asks, before any route is run; refuses who does not say it.
pub(super) async fn identify(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let door = request.extensions().get::<Door>().copied();
    let found = match door {
        Some(Door::Socket(uid)) => Ok((local(&admin, uid), None)),
        Some(Door::Api) => shown(&admin, request.headers()),
        Some(Door::Machines) | None => Err(Refusal::absent("there is nothing here")),
    };
    match found {
        Ok((caller, token)) => {
            request.extensions_mut().insert(Arc::new(caller));
            let answer = hardened(next.run(request).await);
            match token {
                Some(hash) => until_gone(answer, admin.tokens.clone(), hash),
                None => answer,
            }
        }
        Err(refusal) => {
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            let mut answer = hardened(refusal.into_response());
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            answer
        }
    }
}

/// A user of this host who can open the admin socket: its owner and group may do everything.
fn local(admin: &Admin, uid: Option<u32>) -> Caller {
    let who = uid.map_or_else(|| "an admin".to_owned(), |uid| (admin.user_name)(uid));
    Caller { who, role: Role::Admin, scope: Scope::default(), expires: None }
}

/// Whoever shows a token, with the token's hash.
fn shown(admin: &Admin, headers: &HeaderMap) -> Result<(Caller, Option<Hash>), Refusal> {
    let refused = |error: String| Refusal::new(StatusCode::UNAUTHORIZED, error);
    let hint = "`swarmboot token create` makes one, on the server's host; `swarmboot login` keeps it";
    let given =
        headers.get(header::AUTHORIZATION).ok_or_else(|| refused("no token was shown".into()).hint(hint))?;
    let token = given.to_str().ok().and_then(|text| text.split_once(' '));
    let token =
        token.filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_MAX);
    let (_, token) = token.ok_or_else(|| {
        refused("the header `Authorization` holds no token".into())
            .hint("write `Authorization: Bearer sbt_…`")
    })?;
    let now = Timestamp::now();
    let tokens = admin.tokens.borrow();
    let token = tokens.find(&Hash::of(token.trim().as_bytes()), now);
    let token = token.map_err(|error| refused(error.to_string()).hint(hint))?;
    admin.used.note(&token.name, now);
    Ok((token.caller(), Some(token.hash)))
}

/// Headers for browsers: answers are not framed, guessed at, kept, or mixed with what others serve.
fn hardened(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Refuses who may not use a route.
pub(super) async fn guard(State(need): State<Need>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Arc<Caller>>().map(|caller| need.check(caller)) {
        Some(Ok(())) => next.run(request).await,
        Some(Err(refusal)) => refusal.into_response(),
        None => Refusal::new(StatusCode::UNAUTHORIZED, "nobody is known to ask").into_response(),
    }
}

/// The state of the routes for whoever asks: what they order is theirs in the log, and they see what is in their scope.
pub(super) struct Asked(pub(super) Admin);

impl FromRequestParts<Admin> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Admin) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Arc<Caller>>().cloned();
        let caller =
            caller.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "nobody is known to ask"))?;
        let key = order_key(&parts.headers)?;
        Ok(Self(Admin { fleet: state.fleet.asked_by(caller).under(key), ..state.clone() }))
    }
}

/// The header of an order, for the document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub(super) struct OrderKey {
    /// The caller's own name for this order: sent again under it, it is answered again and done once.
    #[param(rename = "Idempotency-Key", pattern = "^[!-~]+$", min_length = 1, max_length = 128)]
    key: Option<String>,
}

/// The caller's own name for an order.
///
/// # Errors
/// When it is too long, or no word.
fn order_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let fits = |key: &&str| {
        !key.is_empty() && key.len() <= ORDER_KEY_MAX && key.bytes().all(|byte| byte.is_ascii_graphic())
    };
    value.to_str().ok().filter(fits).map(Some).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "the Idempotency-Key makes no sense")
            .hint(format!("up to {ORDER_KEY_MAX} letters, digits and signs; another one for each order"))
    })
}

/// Returns when a token lets nobody in any more: it was revoked, or its time is over.
async fn gone(mut tokens: watch::Receiver<Arc<TokenTable>>, hash: Hash) {
    loop {
        let now = Timestamp::now();
        let left = match tokens.borrow_and_update().find(&hash, now) {
            Ok(token) => {
                token.expires.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
            }
            Err(_) => return,
        };
        let over = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            changed = tokens.changed() => if changed.is_err() { return },
        }
    }
}

/// An answer that goes on, such as a log that is followed, ends with the token of who asked for it. A short one is on its
/// way already.
fn until_gone(answer: Response, tokens: watch::Receiver<Arc<TokenTable>>, hash: Hash) -> Response {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    answer.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(gone(tokens, hash)))))
}

/// Refuses paths of this host's files to who does not come over its admin socket.
///
/// # Errors
/// When the request came over the network.
pub(super) fn check_local(door: Door, what: &str) -> Result<(), Refusal> {
    if let Door::Socket(_) = door {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, format!("{what} names a file of the server's host"))
        .hint("send the file itself, or run the command on the server's host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_met_by_a_role_as_high_and_a_scope_as_wide() {
        let caller = |role, sites: &[&str]| Caller {
            who: "anna".to_owned(),
            role,
            scope: Scope { sites: sites.iter().map(|site| (*site).to_owned()).collect(), labels: vec![] },
            expires: None,
        };
        let table = [
            (Need::part(Role::Viewer), Role::Viewer, &[][..], true),
            (Need::part(Role::Viewer), Role::Viewer, &["lab"][..], true),
            (Need::part(Role::Operator), Role::Viewer, &[], false),
            (Need::part(Role::Operator), Role::Admin, &["lab"], true),
            (Need::whole(Role::Operator), Role::Operator, &[], true),
            (Need::whole(Role::Operator), Role::Admin, &["lab"], false),
            (Need::whole(Role::Admin), Role::Operator, &[], false),
        ];
        for (need, role, sites, may) in table {
            assert_eq!(need.check(&caller(role, sites)).is_ok(), may, "{need:?} {role} {sites:?}");
        }
    }
}
