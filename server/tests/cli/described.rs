//! Holds every answer of the server to its document: a layer around the API that validates what passes through it. Owns the
//! validators; touches nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::parts::Parts;

/// The document's path.
const DOCUMENT: &str = "/api/v1/openapi.json";
/// How long a line of a stream may be.
const LINE_MAX: usize = 1 << 20;

/// What was found: answers that do not fit the document, and how many fit.
#[derive(Debug, Default)]
pub(crate) struct Found {
    wrong: Vec<String>,
    fit: usize,
}

/// The document's answers with a validator each, and what was found.
#[derive(Clone)]
pub(crate) struct Described {
    document: Arc<Value>,
    validators: Arc<Mutex<HashMap<String, Arc<Validator>>>>,
    found: Arc<Mutex<Found>>,
}

impl Described {
    /// By the document that `router` serves.
    pub(crate) async fn by(router: &Router) -> Self {
        use hyper::service::Service as _;
        let request = hyper::Request::get(DOCUMENT).body(Body::empty()).unwrap();
        let Ok(answer) = hyper_util::service::TowerToHyperService::new(router.clone()).call(request).await;
        let bytes = axum::body::to_bytes(answer.into_body(), 4 << 20).await.unwrap();
        let document = serde_json::from_slice(&bytes).unwrap();
        Self { document: Arc::new(document), validators: Arc::default(), found: Arc::default() }
    }

    /// `router`, with its answers validated.
    pub(crate) fn around(&self, router: Router) -> Router {
        let described = self.clone();
        router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let described = described.clone();
            async move {
                let (method, path) =
                    (request.method().as_str().to_lowercase(), request.uri().path().to_owned());
                described.validated(&method, &path, next.run(request).await).await
            }
        }))
    }

    /// Fails with what does not fit; returns how many answers were held to the document.
    pub(crate) fn verdict(&self) -> usize {
        let found = self.found.lock().unwrap();
        assert!(found.wrong.is_empty(), "answers that do not fit the document:\n{}", found.wrong.join("\n"));
        found.fit
    }

    async fn validated(&self, method: &str, path: &str, answer: Response) -> Response {
        let Some(below) = path.strip_prefix("/api/v1").filter(|_| path != DOCUMENT) else { return answer };
        let status = answer.status().as_u16();
        // What is no route, or no method of one, is in no document.
        let Some(operation) = self.operation(method, below) else { return answer };
        let kind =
            answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (kind, what) = (kind.to_owned(), format!("{method} {path}: {status}"));
        let media = operation.pointer(&format!("/responses/{status}/content/{}", kind.replace('/', "~1")));
        if media.is_none() {
            self.note(&what, Err(format!("{kind} is not in the document")));
            return answer;
        }
        let validator = self.validator(&media.unwrap()["schema"]);
        match kind.as_str() {
            "application/json" | "application/problem+json" => {
                let (head, body) = answer.into_parts();
                let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
                self.note(&what, valid(&validator, &bytes));
                Response::from_parts(head, Body::from(bytes))
            }
            "application/x-ndjson" | "text/event-stream" => self.lines(what, validator, answer),
            _ => answer,
        }
    }

    /// Each line of a stream is held to the document as it passes.
    fn lines(&self, what: String, validator: Arc<Validator>, answer: Response) -> Response {
        let (described, mut rest) = (self.clone(), BytesMut::new());
        answer.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |piece| {
                let Ok(piece) = piece else { return };
                rest.extend_from_slice(piece);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Bytes = rest.split_to(end + 1).freeze();
                    let line = line.strip_prefix(b"data: ".as_slice()).unwrap_or(&line);
                    if line.starts_with(b"{") {
                        described.note(&what, valid(&validator, line));
                    }
                }
                assert!(rest.len() < LINE_MAX, "a line without an end");
            }))
        })
    }

    /// The operation that the path belongs to: the one with the most words that are not variable.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let words: Vec<&str> = template.split('/').collect();
            words.len() == parts.len()
                && words.iter().zip(&parts).all(|(word, part)| word.starts_with('{') || word == part)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
        paths[found].get(method)
    }

    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let make = || {
            let whole = json!({"allOf": [schema], "components": self.document["components"]});
            Arc::new(jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap())
        };
        Arc::clone(validators.entry(schema.to_string()).or_insert_with(make))
    }

    fn note(&self, what: &str, valid: Result<(), String>) {
        let mut found = self.found.lock().unwrap();
        match valid {
            Ok(()) => found.fit += 1,
            Err(why) => found.wrong.push(format!("{what}: {why}")),
        }
    }
}

fn valid(validator: &Validator, text: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut errors = validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path()));
    errors.next().map_or(Ok(()), |first| Err(format!("{first} in {value}")))
}

/// It finds what it is for.
#[test]
fn an_answer_that_differs_is_found() {
    let schema =
        json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0}}});
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    assert!(valid(&validator, br#"{"a":1}"#).is_ok());
    for wrong in [&br#"{"a":-1}"#[..], br#"{"a":"1"}"#, b"{}", b"[]", b"{"] {
        assert!(valid(&validator, wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_the_document_and_what_cannot_be_read_is_refused() {
    let parts = Parts::start().await;
    let bearer = crate::bearer(&parts, "chief", &["--role", "admin"]).await;
    let ask = async |line: &str, header: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        );
        parts.raw(&request).await
    };
    for line in [
        "GET /api/v1/machines?limit=x",
        "GET /api/v1/machines/%ff",
        "PUT /api/v1/images/x?no_table=7",
        "GET /api/v1/events?since=-1",
        "POST /api/v1/machines",
        "POST /api/v1/backup?images=2",
    ] {
        let answer = ask(line, &bearer, "{\"a").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("problem+json"), "{line}: {answer}");
    }
    // Shapes are objects, also where a list of their fields could be read.
    let list = ask("POST /api/v1/swarm/limits", &bearer, "[null, null]").await;
    assert!(list.starts_with("HTTP/1.1 400") && list.contains("no JSON object"), "{list}");
    // The document and its page hold nothing of this server.
    for (path, kind, word) in [
        ("/api/v1/openapi.json", "content-type: application/json", r#""openapi":"3.1.0""#),
        ("/api", "content-type: text/html", "<h1>the api</h1>"),
    ] {
        let answer = ask(&format!("GET {path}"), "", "").await.to_lowercase();
        assert!(
            answer.starts_with("http/1.1 200") && answer.contains(kind) && answer.contains(word),
            "{path}"
        );
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{path}");
    }
    parts.verdict();
}
