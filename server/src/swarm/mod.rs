//! Steps 7 to 13 as the server sees them: who is in the swarm, who is given which chunk, who is still
//! needed. The server is the tracker and the first seed; all other spreading is the agents' own.

// What the rest of the server says to the swarm, and hears from it.
mod handle;

// Which chunk the server gives to whom.
pub mod inject;

// Who may leave.
pub mod release;

// One image's agents: gate, neighbours, injection, release.
pub mod image_swarm;

// What the server serves, and to whom.
mod seeder;

// How much may go over the server's line and into each site.
mod limits;

// One agent's control stream.
mod control;

// Chunks that cannot be read, from whoever has them.
mod mend;

// Where an agent's peers find it.
mod reachable;

// The task that is the server's node.
mod node;

pub use handle::{Admission, ChunkSource, Gather, Stopped, SwarmError, SwarmFact, SwarmHandle};
pub use limits::{LimitOrder, LineLimits, NoRate, Rate};
pub use node::{Bound, SiteNet, bind};
