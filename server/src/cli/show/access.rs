//! Prints tokens, and who somebody is to the server. Touches standard output and standard error.

use super::words::when;
use super::{Screen, print_line, print_table, table, talk};
use crate::api::shapes::{TokenMade, TokenShown, WhoAmI};
use crate::fault::Fault;

impl Screen {
    /// Prints who somebody is to the server.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn whoami(&self, me: &WhoAmI) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(me);
        }
        let until = me.expires.map_or_else(String::new, |at| format!(", until {}", when(at)));
        print_line(&format!("{}: {}, for {}{until}", me.who, me.role, me.scope))
    }

    /// Prints a new token: alone on standard output, so that it can be put into a file.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn token_made(&self, made: &TokenMade) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(made);
        }
        let until = made.shown.expires.map_or_else(|| "it is revoked".to_owned(), when);
        talk(&format!(
            "the token of {} ({}, for {}), good until {until}; it is not shown again:",
            made.shown.name, made.shown.role, made.shown.scope
        ));
        print_line(&made.token)
    }

    /// Prints tokens as a table.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn tokens(&self, tokens: &[TokenShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&tokens);
        }
        let mut rows = table(&["NAME", "ROLE", "SCOPE", "MADE", "BY", "EXPIRES", "USED"]);
        for token in tokens {
            let end = match (token.revoked, token.expires) {
                (Some(at), _) => format!("revoked {}", when(at)),
                (None, Some(at)) => when(at),
                (None, None) => "never".to_owned(),
            };
            rows.add_row([
                token.name.clone(),
                token.role.to_string(),
                token.scope.to_string(),
                when(token.made),
                token.by.clone(),
                end,
                token.used.map_or_else(|| "-".to_owned(), when),
            ]);
        }
        print_table(&rows)
    }
}
