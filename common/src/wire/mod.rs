//! What crosses the network: routes and bodies over HTTP, messages over the swarm. Owns these shapes; touches nothing.

// Routes and bodies of the boot server.
pub mod http;

// The body of an installed OS's call home.
pub mod call_home;

// Small files by hash, which machines of a site take from each other.
pub mod objects;

// Messages between the server and its agents, and between agents.
pub mod swarm;

// Messages between the server and a site's relay.
pub mod relay;
