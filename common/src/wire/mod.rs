//! What crosses the network: routes and bodies over HTTP, messages over the swarm.

// Routes and bodies of the boot server.
pub mod http;

// Messages between the server and its agents, and between agents.
pub mod swarm;
