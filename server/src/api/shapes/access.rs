//! Who asks something of the API and what they may do: roles, scopes and tokens. Where a person comes from (the admin
//! socket, a token) is a matter of `server/src/api/caller.rs`; what a role may do, of `server/src/api/routes.rs`. Touches
//! nothing.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What somebody may do; each role may do all that the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May look at everything but secrets.
    Viewer,
    /// May order, cancel and change machines.
    Operator,
    /// May also change the server: images, kits, relays, limits, tokens.
    Admin,
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: the roles are viewer, operator and admin")]
pub struct UnknownRole(String);

impl Role {
    /// The role's name, as it is shown and kept in the records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

/// Which machines somebody may see and change. Empty for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Scope {
    /// Machines of these sites.
    pub sites: Vec<String>,
    /// Machines with all of these labels, each `key=value`.
    pub labels: Vec<String>,
}

impl Scope {
    /// Whether it is everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.sites.is_empty() && self.labels.is_empty()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("everything");
        }
        let sites = self.sites.iter().map(|site| format!("site {site}"));
        let all: Vec<String> = sites.chain(self.labels.iter().cloned()).collect();
        f.write_str(&all.join(", "))
    }
}

/// Somebody who asks something of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, as the log names them: a token's name, or a user of the server's host.
    pub who: String,
    /// What they may do.
    pub role: Role,
    /// With which machines.
    pub scope: Scope,
    /// When that ends; `None` for never.
    pub expires: Option<Timestamp>,
}

/// The answer to `whoami`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WhoAmI {
    /// As the log names you.
    pub who: String,
    /// What you may do.
    pub role: Role,
    /// With which machines.
    pub scope: Scope,
    /// When your token expires; `None` for never.
    pub expires: Option<Timestamp>,
}

/// Asks for a new token.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenOrder {
    /// Its name, by which the log names whoever uses it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// With which machines; all when it is left out.
    #[serde(default)]
    pub scope: Scope,
    /// Seconds after which it expires; `None` for never.
    #[serde(default)]
    pub expires_seconds: Option<u64>,
}

/// A new token. The server keeps only its hash: this is the only time that it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenMade {
    /// The token itself, which is a secret.
    pub token: String,
    /// What is kept of it.
    pub shown: TokenShown,
}

/// A token, without what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenShown {
    /// Its name; that of a revoked one may have been given again.
    pub name: String,
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
    /// When it was last used since the server's process started; `None` if it was not.
    #[serde(default)]
    pub used: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_the_ones_before_it_may() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("Admin".parse::<Role>().is_err() && "root".parse::<Role>().is_err());
    }
}
