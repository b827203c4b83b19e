//! Tokens of the API: made, listed, revoked. Touches the fleet's queue, and the random source for new ones.

use std::sync::Arc;

use common::id::Hash;
use tokio::sync::watch;

use super::super::order::refused;
use super::super::request::FleetError;
use super::super::token::TokenTable;
use super::FleetHandle;
use crate::api::shapes::{TokenMade, TokenOrder, TokenShown};

/// What every token begins with, so that one that leaks into a file is found.
const MARK: &str = "sbt_";

impl FleetHandle {
    /// The tokens, republished whenever they change.
    #[must_use]
    pub fn tokens(&self) -> watch::Receiver<Arc<TokenTable>> {
        self.tokens.clone()
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// When it is refused, or could not be committed.
    pub async fn make_token(&self, order: TokenOrder) -> Result<TokenMade, FleetError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            let error = format!("there is no random source: {error}");
            FleetError::Refused(refused(error, "look at the server's host"))
        })?;
        let token = format!("{MARK}{}", hex::encode(secret));
        let hash = Hash::of(token.as_bytes());
        let made = self.ask(move |fleet, now| fleet.make_token(&order, hash, now)).await?;
        Ok(TokenMade { token, shown: made.map_err(FleetError::Refused)? })
    }

    /// Revokes the token of this name.
    ///
    /// # Errors
    /// When there is none, or it could not be committed.
    pub async fn revoke_token(&self, name: String) -> Result<TokenShown, FleetError> {
        self.ask(move |fleet, now| fleet.revoke_token(&name, now)).await?.map_err(FleetError::Refused)
    }

    /// Writes into the log that whoever asks through this handle has changed the server: `text` says how. For blocking
    /// threads. A change that cannot be logged has been made all the same, so that is only complained about.
    pub fn note_blocking(&self, text: String) {
        tokio::runtime::Handle::current().block_on(self.note(text));
    }

    /// As [`FleetHandle::note_blocking`], for tasks.
    pub async fn note(&self, text: String) {
        if let Err(error) = self.tell(move |fleet, now| fleet.note_change(&text, now)).await {
            tracing::error!(%error, "a change of the server is missing in the log");
        }
    }

    /// All tokens on record, revoked ones too.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn tokens_shown(&self) -> Result<Vec<TokenShown>, FleetError> {
        self.look(super::super::decide::Fleet::tokens_shown).await
    }
}
