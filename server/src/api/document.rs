//! The document of the API, in the form of OpenAPI 3.1: what the attributes of the handlers and the shapes say, completed
//! from the table of routes, so that nothing is said twice. Served to anybody, as JSON and as a page: it holds nothing
//! of this server. Touches nothing.

// Core: the document as a page of HTML.
mod page;

use std::sync::OnceLock;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, Ref, RefOr, ResponseBuilder, ServerBuilder};

use super::caller::Need;
use super::shapes::PREFIX;

/// A route, as the table has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// What it needs of whoever asks.
    pub(super) need: Need,
    /// The method, in small letters.
    pub(super) method: &'static str,
    /// The path, below [`PREFIX`].
    pub(super) path: &'static str,
}

/// The name of the one way to say who asks.
const TOKEN: &str = "token";

/// What the document says of the whole.
const ABOUT: &str = "The API of a swarmboot server: everything that its command line and its dashboard do. \
Over TLS with a token (`swarmboot token create`) in `Authorization: Bearer sbt_…`, or over the admin socket without one. \
Each operation names the least role that it needs in `x-role`; where `x-scope` is `everything`, a token that is bound to \
sites or labels does not do. Errors are `application/problem+json`, with the words of the command line in `error`, `cause` \
and `hint`.";

/// The routes of the document: for anybody, because there is nothing secret in it. `document` makes it, once.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(document: fn() -> OpenApi) -> Router<S> {
    static JSON: OnceLock<Bytes> = OnceLock::new();
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    let json = move || JSON.get_or_init(|| serde_json::to_vec(&document()).unwrap_or_default().into());
    let html =
        move || PAGE.get_or_init(|| page::html(&serde_json::to_value(document()).unwrap_or_default()).into());
    let served = |kind: &'static str, body: Bytes| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, crate::docs::POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, body).into_response()
    };
    Router::new()
        .route(
            &format!("{PREFIX}/openapi.json"),
            get(async move || served("application/json", json().clone())),
        )
        .route("/api", get(async move || served("text/html; charset=utf-8", html().clone())))
}

/// The document: what the attributes say in `described`, with what `rows` know of each operation.
pub(super) fn of(mut described: OpenApi, rows: &[Row]) -> OpenApi {
    described.info = InfoBuilder::new()
        .title("swarmboot")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(None)
        .build();
    described.servers = Some(vec![ServerBuilder::new().url(PREFIX).build()]);
    let parts = described.components.get_or_insert_default();
    parts.add_security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    for row in rows {
        let item = described.paths.paths.get_mut(row.path);
        if let Some(operation) = item.and_then(|item| operation(item, row.method)) {
            complete(operation, *row);
        }
    }
    described
}

/// The operation of this method, if the document has it.
fn operation<'a>(item: &'a mut PathItem, method: &str) -> Option<&'a mut Operation> {
    match method {
        "get" => item.get.as_mut(),
        "put" => item.put.as_mut(),
        "post" => item.post.as_mut(),
        "delete" => item.delete.as_mut(),
        "patch" => item.patch.as_mut(),
        "head" => item.head.as_mut(),
        _ => None,
    }
}

/// Names an operation after its method and path, and adds who may and what can go wrong.
fn complete(operation: &mut Operation, row: Row) {
    let words = row.path.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    operation.operation_id = Some(format!("{}_{}", row.method, words.join("_")));
    operation.tags = words.first().map(|first| vec![(*first).to_owned()]);
    operation.security = Some(vec![SecurityRequirement::new(TOKEN, Vec::<String>::new())]);
    let scope = if row.need.scoped { "any" } else { "everything" };
    let needs = [("x-role", row.need.role.name()), ("x-scope", scope)];
    operation
        .extensions
        .get_or_insert_default()
        .extend(needs.map(|(name, value)| (name.to_owned(), value.into())));
    let (named, sent) = (row.path.contains('{'), operation.request_body.is_some());
    let asked = operation.parameters.is_some();
    for (status, words, may) in [
        ("400", "The request cannot be read", true),
        ("401", "No token was shown, or one that lets nobody in", true),
        ("403", "The role or the scope of whoever asks does not allow it", true),
        ("404", "What the request names is not there", named || sent),
        ("409", "It does not fit what else is being done", sent || row.method == "delete"),
        ("413", "The request is too long", sent),
        ("422", "It cannot be done: `error`, `cause` and `hint` say why", named || sent || asked),
        ("500", "The server failed; its own log has more", true),
        ("503", "The server is stopping, or has too many long requests", true),
    ] {
        if may {
            operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(words));
        }
    }
}

/// An error answer.
fn problem<T>(words: &str) -> RefOr<T>
where
    RefOr<T>: From<utoipa::openapi::Response>,
{
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new().description(words).content("application/problem+json", content).build().into()
}

#[cfg(test)]
mod tests;
