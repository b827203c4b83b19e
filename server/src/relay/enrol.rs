//! The first start of a relay: shows its key and its invitation to the server, once. Touches the server and the state
//! folder.

use std::time::Duration;

use bytes::Bytes;
use common::limits::VERDICT_BYTES_MAX;
use common::trust::Signed;
use common::wire::relay::{ENROL, Enrolled, InviteWord};
use hyper::{Request, StatusCode, header};

use super::home::{Enrolment, Home};
use super::upstream::{NoAnswer, Upstream, refusal, whole};
use crate::fault::Fault;

/// The longest pause between two tries while the server cannot be reached.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server that this relay belongs to: by an earlier start, or by `invite`. Waits while the server cannot be reached.
///
/// # Errors
/// When there is neither, the server refuses the invitation, or nothing can be kept.
pub(super) async fn enrolment(
    home: &mut Home,
    upstream: &Upstream,
    invite: Option<InviteWord>,
) -> Result<Enrolment, Fault> {
    let known = home.enrolment()?;
    let word = match (known, invite) {
        (Some(known), Some(word)) if known.revoked || known.server != word.server => {
            home.new_key()?;
            word
        }
        // The word stands in a unit or a file, and was used at the first start.
        (Some(known), _) if !known.revoked => return Ok(known),
        (_, Some(word)) => word,
        (Some(known), None) => return Err(revoked(&known)),
        (None, None) => {
            return Err(Fault::usage("this relay belongs to no server yet").hint(
                "on the server, `swarmboot relay invite --site NAME` prints a word: start with --invite WORD",
            ));
        }
    };
    let mut pause = Duration::from_secs(1);
    loop {
        match ask(home, upstream, &word).await? {
            Ok(enrolment) => {
                home.enrolled(&enrolment)?;
                tracing::info!(name = enrolment.name, site = enrolment.site, server = %enrolment.server, "the server has let this relay in");
                return Ok(enrolment);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the server cannot be asked to let this relay in, and is asked again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_MAX);
            }
        }
    }
}

/// The error of a relay that was revoked.
pub(super) fn revoked(enrolment: &Enrolment) -> Fault {
    Fault::failed(format!("the server has revoked this relay, {}", enrolment.name)).hint(format!(
        "nothing is served here any more, and machines go to the server; `swarmboot relay invite --site {}` on the \
         server lets a relay in again: start with --invite WORD",
        enrolment.site
    ))
}

async fn ask(
    home: &Home,
    upstream: &Upstream,
    word: &InviteWord,
) -> Result<Result<Enrolment, NoAnswer>, Fault> {
    let sent = word.enrol(&home.keys, env!("CARGO_PKG_VERSION"));
    let body = serde_json::to_vec(&sent)
        .map_err(|error| Fault::failed("the request to be let in cannot be written").because(&error))?;
    let request = Request::post(ENROL)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body).into())
        .map_err(|error| Fault::failed("the server cannot be asked").because(&error))?;
    let answer = match upstream.send(request, PATIENCE).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            let (_, said) = refusal(answer).await;
            tracing::warn!(said, "the server cannot let this relay in just now");
            return Ok(Err(NoAnswer::BrokeOff(None)));
        }
        StatusCode::NOT_FOUND => {
            return Err(Fault::failed(format!("{} knows nothing of relays", upstream.url()))
                .hint("is that a swarmboot server of this version?"));
        }
        _ => {
            let (_, said) = refusal(answer).await;
            return Err(Fault::failed(format!("the server does not let this relay in: {said}"))
                .hint("on the server, `swarmboot relay invite --site NAME` prints a new word"));
        }
    }
    let answer = match whole(answer.into_body(), VERDICT_BYTES_MAX).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    let untrusted = |error: &dyn std::error::Error| {
        Fault::failed(format!(
            "what answers at {} is not the server that the invitation is of",
            upstream.url()
        ))
        .because(error)
        .hint("look at --server; nothing was told that would let another relay in")
    };
    let signed: Signed<Enrolled> = serde_json::from_slice(&answer).map_err(|error| untrusted(&error))?;
    let enrolled = signed.open(&word.server).map_err(|error| untrusted(&error))?;
    if enrolled.request != sent.digest() {
        return Err(Fault::failed("the server's answer is to another request")
            .hint("something between here and the server repeats old answers"));
    }
    let Enrolled { name, site, .. } = enrolled;
    Ok(Ok(Enrolment { server: word.server, name, site, revoked: false }))
}
