//! What the server's own line and the line into each site may carry. Owns the limits as the configuration and the admin
//! give them; touches nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rate::Rate;

/// The rate limits in force; also what the configuration sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LineLimits {
    /// For everything that the server sends; `None` is unlimited.
    pub server: Option<Rate>,
    /// For what the server sends into a site, by the site's name; a site that is not listed is unlimited.
    pub sites: BTreeMap<String, Rate>,
}

/// A change of one limit, as the API receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LimitOrder {
    /// The site whose limit changes; `None` for the server's own line.
    pub site: Option<String>,
    /// The new limit; `None` removes it.
    pub rate: Option<Rate>,
}

impl LineLimits {
    pub(super) fn set(&mut self, order: LimitOrder) {
        match (order.site, order.rate) {
            (None, rate) => self.server = rate,
            (Some(site), Some(rate)) => {
                self.sites.insert(site, rate);
            }
            (Some(site), None) => {
                self.sites.remove(&site);
            }
        }
    }
}
