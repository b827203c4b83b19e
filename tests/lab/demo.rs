//! The demo: runs the main job and prints it step by step. `tests/demo` sets everything up and starts it. With `--keep`
//! the rack stays up until Enter or Ctrl-C.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use lab::main_job::{self, Audience};
use lab::net::Net;
use lab::rack::Rack;
use lab::wait;

fn main() -> ExitCode {
    let keep = std::env::args().any(|word| word == "--keep");
    let audience = Audience {
        tell: &|text| println!("{text}"),
        linger: &|rack, net| if keep { hold(rack, net) } else { Ok(()) },
    };
    let ended = wait::stop_on_signals().and_then(|()| main_job::run(&audience));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps the rack up until the program is told to stop.
fn hold(rack: &Rack<'_>, net: &Net) -> Result<()> {
    println!("\nThe rack stays up; Ctrl-C takes it down. To look around:");
    println!("  export SWARMBOOT_SOCKET={}", rack.server.socket().display());
    for words in
        ["machine list", "machine show rack1-01", "deploy status d1", "logs --follow", "swarm status"]
    {
        println!("  {} {words}", rack.server.command(["--version"]).get_program().display());
    }
    println!("  {}", net.shell());
    while !wait::told_to_stop() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
