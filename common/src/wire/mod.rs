//! What crosses the network: routes and bodies over HTTP, messages over the swarm.

// Routes and bodies of the boot server.
pub mod http;

// What an installed OS says of its disks.
pub mod call_home;

// Messages between the server and its agents, and between agents.
pub mod swarm;
