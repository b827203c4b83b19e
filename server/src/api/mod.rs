//! The admin's interface: the shapes that the command line and the server exchange, and what lies on both sides of
//! the socket.

// What is exchanged; also what `-o json` prints.
pub mod shapes;
