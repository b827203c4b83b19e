//! Error responses: a status and a JSON body with error, cause and hint ([`Refused`]), for people and machines. Touches
//! `common` only.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::causes;
use common::wire::http::Refused;
use serde::Serialize;

use crate::fleet::FleetError;

/// An error response.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    body: Refused,
}

impl Refusal {
    /// An error of one sentence, without cause or hint.
    #[must_use]
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: Refused { error: error.into(), cause: None, hint: None } }
    }

    /// Sets the hint: what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// Sets the cause: the error underneath.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.body.cause = Some(cause.to_string());
        self
    }

    /// A 404 of one sentence.
    #[must_use]
    pub fn absent(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The sentence and its cause in one line.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let cause = self.body.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{}{cause}", self.body.error)
    }

    /// The body alone, for the last line of a task's stream.
    #[must_use]
    pub fn into_body(self) -> Refused {
        self.body
    }
}

impl From<Refused> for Refusal {
    fn from(body: Refused) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, body }
    }
}

impl From<FleetError> for Refusal {
    fn from(error: FleetError) -> Self {
        let cause = causes::behind(&error);
        let (status, hint) = match &error {
            FleetError::Refused(body) => return body.clone().into(),
            FleetError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "try again when it is back"),
            FleetError::Repeated => (StatusCode::CONFLICT, "number each request higher than the one before"),
            FleetError::Events(_) => (StatusCode::CONFLICT, "report the hardware first, under this key"),
            FleetError::Unwritten(_) | FleetError::Records(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "look whether the server's disk is full or failing")
            }
            FleetError::Worker(_) | FleetError::Thread(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the server's own log has more")
            }
        };
        let body = Refused { error: error.to_string(), cause, hint: Some(hint.to_owned()) };
        Self { status, body }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(&self.body)).into_response();
        answer.extensions_mut().insert(Told(self.body));
        answer
    }
}

/// The body of an error response, for [`as_problem`].
#[derive(Debug, Clone)]
struct Told(Refused);

/// An error as a problem of RFC 9457. `title` and `detail` are for clients that know no more than that; `error`, `cause`
/// and `hint` are what the command line prints.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    r#type: &'static str,
    title: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    told: Refused,
}

/// Sends an error of the API as `application/problem+json`; anything else as it is. Loader and agent get errors without
/// this: they read the three fields, and each byte crosses a thin line.
pub async fn as_problem(mut answer: Response) -> Response {
    let Some(Told(told)) = answer.extensions_mut().remove::<Told>() else { return answer };
    let detail = told.cause.iter().chain(&told.hint).cloned().collect::<Vec<_>>().join("; ");
    let problem = Problem {
        r#type: "about:blank",
        title: told.error.clone(),
        status: answer.status().as_u16(),
        detail: Some(detail).filter(|detail| !detail.is_empty()),
        told,
    };
    let Ok(body) = serde_json::to_vec(&problem) else { return answer };
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    *answer.body_mut() = body.into();
    answer
}
