//! The manual: the pages under `server/docs`, which are part of the program, and their routes at `/docs`. Touches
//! nothing outside of the program.

// Core: Markdown as a page of HTML.
mod page;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::Embed;

pub(crate) use page::escaped;

/// The files of the manual.
#[derive(Embed)]
#[folder = "docs/"]
#[include = "*.md"]
#[include = "*.svg"]
#[include = "*.css"]
struct Files;

/// The page that stands for all.
const FIRST: &str = "index";

/// Nothing but what the server itself hands out, and no scripts.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The names of all pages without their endings, in the order of the first page's links; those that it does not name
/// come last.
#[must_use]
pub fn names() -> Vec<String> {
    let mut all: Vec<String> =
        Files::iter().filter_map(|file| Some(file.strip_suffix(".md")?.to_owned())).collect();
    all.sort();
    let first = text(FIRST).unwrap_or_default();
    let place = |name: &String| match name.as_str() {
        FIRST => Some(0),
        name => first.find(&format!("]({name}.md")).map(|at| at + 1),
    };
    all.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    all
}

/// The Markdown of the page `name`.
#[must_use]
pub fn text(name: &str) -> Option<String> {
    let file = Files::get(&format!("{name}.md"))?;
    Some(String::from_utf8_lossy(&file.data).into_owned())
}

/// The routes of the manual, all at or below `/docs`, for anybody who reaches the listener: there is nothing secret in it.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/docs", get(async || show(FIRST)))
        .route("/docs/", get(async || Redirect::permanent("/docs")))
        .route("/docs/{name}", get(async |Path(name): Path<String>| show(&name)))
}

fn show(name: &str) -> Response {
    let as_type = |kind: &'static str, body: Vec<u8>| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, body).into_response()
    };
    // A page may be asked for as its file is called, too.
    let name = name.strip_suffix(".md").unwrap_or(name);
    if let Some(markdown) = text(name) {
        let others = names().into_iter().filter_map(|name| Some((page::title(&text(&name)?), name)));
        let html = page::html(name, &markdown, &others.collect::<Vec<_>>());
        return as_type("text/html; charset=utf-8", html.into_bytes());
    }
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => return missing(),
    };
    Files::get(name).map_or_else(missing, |file| as_type(kind, file.data.into_owned()))
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "the manual has no such page; all are named at /docs\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_page_is_shown_and_only_those() {
        for name in names() {
            let response = show(&name);
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            let html = body(response).await;
            assert!(html.contains("<h1") && !html.contains("<script"), "{name}");
            assert_eq!(show(&format!("{name}.md")).status(), StatusCode::OK);
        }
        assert_eq!(show("style.css").headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        for name in ["nothing", "../Cargo.toml", "style.md", "", "..", "index.html", "/etc/passwd"] {
            assert_eq!(show(name).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }

    /// A page that nobody finds is no page, and neither is one that is not there.
    #[test]
    fn every_page_is_named_by_the_first_and_every_link_leads_somewhere() {
        let names = names();
        let first = text(FIRST).unwrap();
        for name in &names {
            assert!(
                name == FIRST || first.contains(&format!("]({name}.md)")),
                "index.md does not name {name}.md"
            );
            for link in page::links(&text(name).unwrap()) {
                let (file, part) = link.split_once('#').unwrap_or((&link, ""));
                let other = if file.is_empty() { name } else { file.trim_end_matches(".md") };
                if link.contains("://") || Files::get(&link).is_some() {
                    continue;
                }
                let there =
                    text(other).unwrap_or_else(|| panic!("{name}.md links to {link}, which is not there"));
                let parts = page::anchors(&there);
                assert!(
                    part.is_empty() || parts.iter().any(|anchor| anchor == part),
                    "{name}.md: {link}: {parts:?}"
                );
            }
        }
    }
}
