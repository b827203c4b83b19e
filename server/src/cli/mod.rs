//! The command line: parses what an admin typed, sends requests to the server, prints the answers. Data goes to
//! standard output, messages to standard error. Touches the admin socket; decides nothing about machines.

// The grammar of the command line.
pub mod args;

// Prints answers: tables, JSON, log lines.
pub mod show;

// Progress bars, or plain lines where there is no terminal.
pub mod progress;

// The login that is kept.
mod saved;

// One file for each group of commands.
mod access;
mod backup;
mod config;
mod deploy;
mod doctor;
mod hooks;
mod image;
mod kit;
mod logs;
mod machine;
mod order;
mod profile;
mod relay;
mod swarm;

// The manual pages.
mod man;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::args::{Args, Ask, Command, Relay, SOCKET};
use self::show::Screen;
use crate::api::client;
use crate::api::client::Client;
use crate::fault::Fault;

/// Runs the program: parses the command line, runs the command, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Fault::failed("cannot start the runtime").because(&error).report(),
    };
    let ended = runtime.block_on(run(args));
    // A thread that still reads or compresses (a kit's import, a stopped start) is not waited for: its output takes
    // effect only when it is renamed into its place.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(fault) => fault.report(),
    }
}

/// Prints clap's message about a wrong command line, or the help that was requested.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

async fn run(args: Args) -> Result<ExitCode, Fault> {
    let screen = Screen { output: args.output };
    match args.command {
        Command::Serve(serve) => {
            let socket = args.socket.unwrap_or_else(|| SOCKET.into());
            let config = crate::config::Config::resolve(*serve, socket)?;
            crate::serve::run(config).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Login(login) => access::login(&screen, login).await,
        Command::Logout => access::logout(),
        Command::Restore(command) => backup::restore(&screen, command).await,
        Command::Ask(Ask::Relay(Relay::Run(flags))) => {
            crate::relay::run(crate::relay::Config::resolve(*flags)?).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Config(command) => config::run(&screen, command),
        Command::Doctor(doctor) => doctor::run(&screen, doctor, args.server, args.socket).await,
        Command::Man { folder } => man::write(&folder).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "swarmboot", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Ask(command) => {
            let client = Client::new(saved::target(args.server, args.socket, SOCKET)?);
            ask(&client, &screen, command).await
        }
    }
}

/// Asks the server.
async fn ask(client: &Client, screen: &Screen, command: Ask) -> Result<ExitCode, Fault> {
    match command {
        Ask::Status => {
            let status = client.get("/status").await?;
            screen.status(&status).map(|()| ExitCode::SUCCESS)
        }
        Ask::Kit(command) => kit::run(client, screen, command).await,
        Ask::Image(command) => image::run(client, screen, command).await,
        Ask::Machine(command) => machine::run(client, screen, command).await,
        Ask::Profile(command) => profile::run(client, screen, command).await,
        Ask::Deploy(command) => deploy::run(client, screen, command).await,
        Ask::Logs(query) => logs::run(client, screen, query).await,
        Ask::Relay(command) => relay::run(client, screen, command).await,
        Ask::Swarm(command) => swarm::run(client, screen, command).await,
        Ask::Token(command) => access::run(client, screen, command).await,
        Ask::Backup(command) => backup::write(client, command).await,
        Ask::Whoami => access::whoami(client, screen).await,
    }
}
