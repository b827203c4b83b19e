//! Every byte that the server sends, by kind and by site, and what each site's line may carry. Everything that sends to
//! machines reports here, because a thin line does not care what its bytes are. Touches the
//! clock.

// The kinds of bytes, and the counts of one site.
mod tally;

// Core: which address is at which site.
mod sites;

// A rate as people write it.
mod rate;

// What lines may carry.
mod limits;

// The sites that are counted, a bounded number.
mod book;

// Core: how often agents report.
mod reports;

// The handle of the room.
mod meter;

pub use self::book::OTHER_SITES;
pub use self::limits::{LimitOrder, LineLimits};
pub use self::meter::{SiteLine, SiteTraffic, Traffic};
pub use self::rate::{NoRate, Rate};
pub use self::reports::report_pace;
pub use self::sites::{SiteRule, Sites};
pub use self::tally::{Kind, SentByKind};
