//! Core, part of the fleet: tokens of the API: who was given one, what it allows, and until when. The token itself is
//! never kept, only its hash. Touches `api`, `common` and the other cores of the fleet.

use common::id::Hash;
use common::step::{Step, What};
use common::text::fits_name;
use common::wire::http::Refused;
use jiff::{SignedDuration, Timestamp};

use super::decide::{Fleet, Whose};
use super::order::{refused, selectors};
use super::state::Change;
use super::token::{Token, TokenTable};
use crate::api::shapes::{Scope, TokenOrder, TokenShown};

/// The most tokens on record that are not revoked: each is somebody's, and made by hand.
const TOKENS_MAX: usize = 1000;
/// How many revoked ones stay on record, so that whoever still uses one is told so.
const REVOKED_MAX: usize = 1000;
/// The longest name of a token.
const NAME_MAX: usize = 64;
/// The most sites and labels of one scope.
const SCOPE_MAX: usize = 64;
/// The longest life of a token that ends: ten years.
const LIFE_MAX: u64 = 10 * 366 * 86_400;

impl Fleet {
    /// The table of all tokens.
    #[must_use]
    pub fn token_table(&self) -> TokenTable {
        self.state.tokens.values().cloned().collect()
    }

    /// Records a token whose text has the hash `hash`.
    ///
    /// # Errors
    /// When its name, scope or time is not allowed, or there are too many.
    pub fn make_token(
        &mut self,
        order: &TokenOrder,
        hash: Hash,
        now: Timestamp,
    ) -> Result<TokenShown, Refused> {
        self.check_token(order)?;
        let life = order.expires_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let expires = life.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
        let token = Token {
            number: self.state.last_token + 1,
            name: order.name.clone(),
            hash,
            role: order.role,
            scope: order.scope.clone(),
            made: now,
            by: self.caller_name(),
            expires,
            revoked: None,
        };
        let until = expires.map_or_else(String::new, |at| format!(", until {at:.0}"));
        let text = format!(
            "{}: made the token {} ({}, {}{until})",
            self.caller_name(),
            token.name,
            token.role,
            token.scope
        );
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
        let shown = token.shown();
        self.put(Change::Token(Box::new(token)));
        Ok(shown)
    }

    fn check_token(&self, order: &TokenOrder) -> Result<(), Refused> {
        let name = &order.name;
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits_name) {
            let error = format!("`{}` cannot be a token's name", common::limits::cut(name, 80));
            return Err(refused(error, "letters, digits, dots and dashes, such as anna or grafana"));
        }
        if self.state.token_named(name).is_some() {
            let error = format!("there is a token `{name}` already");
            return Err(refused(error, "choose another name, or `swarmboot token revoke` that one first"));
        }
        let alive = self.state.tokens.values().filter(|token| token.revoked.is_none()).count();
        if alive >= TOKENS_MAX {
            return Err(refused(format!("there are {TOKENS_MAX} tokens"), "revoke those that nobody uses"));
        }
        if order.expires_seconds.is_some_and(|seconds| seconds == 0 || seconds > LIFE_MAX) {
            return Err(refused(
                "a token that expires at once, or in more than ten years",
                "write 90d, or leave --expires out for one that does not expire",
            ));
        }
        let Scope { sites, labels } = &order.scope;
        if sites.len() + labels.len() > SCOPE_MAX {
            return Err(refused(
                format!("a scope of more than {SCOPE_MAX} sites and labels"),
                "make it shorter",
            ));
        }
        selectors(labels)?;
        let known = self.sites();
        if let Some(site) = sites.iter().find(|site| !known.contains(*site)) {
            let error = format!("there is no site `{}`", common::limits::cut(site, 80));
            return Err(refused(
                error,
                "a `[[site]]` of the configuration, or one that `machine list` shows",
            ));
        }
        Ok(())
    }

    /// Revokes the token of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn revoke_token(&mut self, name: &str, now: Timestamp) -> Result<TokenShown, Refused> {
        let token = self.state.token_named(name).cloned().ok_or_else(|| {
            let error = format!("there is no token `{}`", common::limits::cut(name, 80));
            refused(error, "`swarmboot token list` shows them")
        })?;
        let text = format!("{}: revoked the token {}", self.caller_name(), token.name);
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
        let token = Token { revoked: Some(now), ..token };
        let shown = token.shown();
        self.put(Change::Token(Box::new(token)));
        self.drop_old_tokens();
        Ok(shown)
    }

    fn drop_old_tokens(&mut self) {
        let revoked: Vec<u64> = self
            .state
            .tokens
            .values()
            .filter(|token| token.revoked.is_some())
            .map(|token| token.number)
            .collect();
        let surplus = revoked.len().saturating_sub(REVOKED_MAX);
        for number in revoked.into_iter().take(surplus) {
            self.put(Change::TokenGone(number));
        }
    }

    /// Writes into the log what whoever asks has changed of the server: images, kits, limits.
    pub fn note_change(&mut self, text: &str, now: Timestamp) {
        let text = format!("{}: {text}", self.caller_name());
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
    }

    /// All tokens on record, the newest last.
    #[must_use]
    pub fn tokens_shown(&self) -> Vec<TokenShown> {
        self.state.tokens.values().map(Token::shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::NoEntry;
    use super::*;
    use crate::api::shapes::Role;
    use crate::fleet::state::State;

    fn fleet() -> Fleet {
        Fleet::new(State::default(), crate::fleet::testing::settings())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn order(name: &str, expires_seconds: Option<u64>) -> TokenOrder {
        TokenOrder { name: name.to_owned(), role: Role::Operator, scope: Scope::default(), expires_seconds }
    }

    #[test]
    fn a_token_lets_in_until_it_is_revoked_or_over() {
        let mut fleet = fleet();
        let (mine, other) = (Hash::of(b"mine"), Hash::of(b"other"));
        fleet.make_token(&order("anna", None), mine, at(10)).unwrap();
        fleet.make_token(&order("ci", Some(60)), other, at(10)).unwrap();
        let table = fleet.token_table();
        assert_eq!(table.find(&mine, at(1_000_000)).unwrap().caller().who, "anna");
        assert_eq!(table.find(&other, at(69)).unwrap().role, Role::Operator);
        assert_eq!(table.find(&other, at(70)).unwrap_err(), NoEntry::Expired(at(70)));
        assert_eq!(table.find(&Hash::of(b"forged"), at(11)).unwrap_err(), NoEntry::Unknown);
        fleet.revoke_token("anna", at(20)).unwrap();
        assert_eq!(fleet.token_table().find(&mine, at(21)).unwrap_err(), NoEntry::Revoked(at(20)));
        assert!(fleet.revoke_token("anna", at(22)).is_err(), "once");
        // Its name is free again, and the new one is another.
        fleet.make_token(&order("anna", None), Hash::of(b"new"), at(30)).unwrap();
        assert_eq!(fleet.token_table().find(&mine, at(31)).unwrap_err(), NoEntry::Revoked(at(20)));
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        let mut fleet = fleet();
        let scoped = |sites: &[&str], labels: &[&str]| {
            let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
            TokenOrder { scope: Scope { sites: texts(sites), labels: texts(labels) }, ..order("x", None) }
        };
        fleet.make_token(&order("taken", None), Hash::of(b"t"), at(1)).unwrap();
        for (wrong, why) in [
            (order("", None), "name"),
            (order("a b", None), "name"),
            (order("\u{1b}[31m", None), "name"),
            (order(&"a".repeat(65), None), "name"),
            (order("taken", None), "already"),
            (order("x", Some(0)), "expires"),
            (order("x", Some(u64::MAX)), "expires"),
            (scoped(&["moon"], &[]), "moon"),
            (scoped(&[], &["=web"]), "=web"),
        ] {
            let refusal = fleet.make_token(&wrong, Hash::of(b"w"), at(2)).unwrap_err();
            assert!(refusal.error.contains(why), "{wrong:?}: {refusal:?}");
        }
        assert_eq!(fleet.tokens_shown().len(), 1);
    }

    #[test]
    fn revoked_tokens_do_not_pile_up() {
        let mut fleet = fleet();
        for n in 0..REVOKED_MAX + 5 {
            let name = format!("t{n}");
            fleet.make_token(&order(&name, None), Hash::of(name.as_bytes()), at(1)).unwrap();
            fleet.revoke_token(&name, at(2)).unwrap();
        }
        assert_eq!(fleet.state.tokens.len(), REVOKED_MAX);
        assert_eq!(fleet.token_table().find(&Hash::of(b"t0"), at(3)).unwrap_err(), NoEntry::Unknown);
        fleet.make_token(&order("next", None), Hash::of(b"n"), at(4)).unwrap();
        assert_eq!(fleet.state.tokens.values().last().unwrap().number, (REVOKED_MAX + 6) as u64);
    }
}
