//! Core: tokens of the API as they are on record, and the table that tells whom one lets in. The token itself is never
//! kept, only its hash. Touches `api` and `common`.

use std::collections::HashMap;
use std::sync::Arc;

use common::id::Hash;
use jiff::Timestamp;

use crate::api::shapes::{Caller, Role, Scope, TokenShown};

/// A token as it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The number that the server gave it; never given again.
    pub number: u64,
    /// Its name: no two that are not revoked have the same.
    pub name: String,
    /// The BLAKE3 hash of its text. The text has 256 random bits, so a fast hash keeps it.
    pub hash: Hash,
    /// What it allows.
    pub role: Role,
    /// With which machines.
    pub scope: Scope,
    /// When it was made.
    pub made: Timestamp,
    /// Who made it.
    pub by: String,
    /// When it expires; `None` for never.
    pub expires: Option<Timestamp>,
    /// When it was revoked; `None` if it was not.
    pub revoked: Option<Timestamp>,
}

impl Token {
    /// It as the API shows it.
    #[must_use]
    pub fn shown(&self) -> TokenShown {
        TokenShown {
            name: self.name.clone(),
            role: self.role,
            scope: self.scope.clone(),
            made: self.made,
            by: self.by.clone(),
            expires: self.expires,
            revoked: self.revoked,
            used: None,
        }
    }

    /// Whoever shows it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { who: self.name.clone(), role: self.role, scope: self.scope.clone(), expires: self.expires }
    }
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// No such token was ever made here, or it was revoked so long ago that nothing is known of it.
    #[error("this token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("this token expired at {0:.0}")]
    Expired(Timestamp),
    /// An admin revoked it.
    #[error("this token was revoked at {0:.0}")]
    Revoked(Timestamp),
}

/// The tokens by their hashes, to be looked up without asking the fleet's thread.
#[derive(Debug, Clone, Default)]
pub struct TokenTable(HashMap<Hash, Arc<Token>>);

impl TokenTable {
    /// The token whose text has this hash, if it lets somebody in at this time. Looking up a hash tells nothing of how
    /// much of a token was guessed.
    ///
    /// # Errors
    /// When it lets nobody in.
    pub fn find(&self, hash: &Hash, now: Timestamp) -> Result<&Arc<Token>, NoEntry> {
        let token = self.0.get(hash).ok_or(NoEntry::Unknown)?;
        match (token.revoked, token.expires) {
            (Some(at), _) => Err(NoEntry::Revoked(at)),
            (_, Some(at)) if at <= now => Err(NoEntry::Expired(at)),
            _ => Ok(token),
        }
    }
}

impl FromIterator<Token> for TokenTable {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> Self {
        Self(tokens.into_iter().map(|token| (token.hash, Arc::new(token))).collect())
    }
}
