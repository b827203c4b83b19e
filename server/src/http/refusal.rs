//! An error as a person or a machine reads it over HTTP: a status and a `Refused` body. Touches `common`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::causes;
use common::wire::http::Refused;

use crate::fleet::FleetError;

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    body: Refused,
}

impl Refusal {
    /// With `status`, in one sentence.
    #[must_use]
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: Refused { error: error.into(), cause: None, hint: None } }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// Adds what stands behind the refusal.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.body.cause = Some(cause.to_string());
        self
    }

    /// Nothing is there.
    #[must_use]
    pub fn absent(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The sentence and what is behind it, in one line.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let cause = self.body.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{}{cause}", self.body.error)
    }

    /// The body alone, for the last line of a task.
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
        (self.status, Json(self.body)).into_response()
    }
}
