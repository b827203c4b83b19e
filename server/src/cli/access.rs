//! `swarmboot login`, `logout`, `whoami` and `token`: who asks, and who may. Touches the API, the terminal, and the file
//! of the login.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;

use super::args::{Login, Token};
use super::client::{Client, Target, url_part};
use super::saved;
use super::show::{Screen, talk};
use crate::api::remote::{Fingerprint, Remote, ServerUrl, look};
use crate::api::shapes::{Scope, TokenMade, TokenOrder, TokenShown, WhoAmI};
use crate::fault::Fault;
use crate::units;

/// The longest file of a token that is read, in bytes.
const TOKEN_FILE_MAX: u64 = 4096;

/// Finds out by which certificate the server is known, tries the token, and keeps both.
pub(super) async fn login(screen: &Screen, login: Login) -> Result<ExitCode, Fault> {
    let url: ServerUrl = login.url.parse()?;
    let fingerprint = match &login.fingerprint {
        Some(text) => Some(text.parse().map_err(|error| {
            Fault::usage(format!("`{}` is no fingerprint", text.escape_debug())).because(&error)
        })?),
        None => confirmed(&url).await?,
    };
    let token = token(login.token_file.as_deref())?;
    let remote = Remote { url, fingerprint, token };
    let me: WhoAmI = Client::new(Target::Remote(remote.clone())).get("/whoami").await?;
    let path = saved::save(&remote)?;
    talk(&format!("logged in to {}, kept in {}", remote.url, path.display()));
    screen.whoami(&me)?;
    Ok(ExitCode::SUCCESS)
}

/// The fingerprint that the admin accepts; `None` where an authority that this host trusts vouches for the certificate.
async fn confirmed(url: &ServerUrl) -> Result<Option<Fingerprint>, Fault> {
    let (print, is_vouched) = look(url).await?;
    if is_vouched {
        return Ok(None);
    }
    talk(&format!("{url} shows a certificate of its own, with the fingerprint\n  {print}"));
    if !std::io::stdin().is_terminal() {
        return Err(Fault::usage("nobody is there to compare the fingerprint")
            .hint("compare it with `swarmboot status` on the server, and give it with --fingerprint"));
    }
    talk("Is that what `swarmboot status` shows on the server? [yes/no]");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Fault::failed("cannot read the answer").because(&error))?;
    if answer.trim() == "yes" {
        return Ok(Some(print));
    }
    Err(Fault::failed("not logged in: the fingerprint was not confirmed"))
}

fn token(file: Option<&Path>) -> Result<String, Fault> {
    let text = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(TOKEN_FILE_MAX).read_to_string(&mut text);
            read.map_err(|error| Fault::failed("cannot read the token").because(&error))?;
            text
        }
        Some(path) => {
            let mut text = String::new();
            let file = std::fs::File::open(path);
            let read = file.and_then(|file| file.take(TOKEN_FILE_MAX).read_to_string(&mut text));
            read.map_err(|error| Fault::usage(format!("cannot read {}", path.display())).because(&error))?;
            text
        }
        None if std::io::stdin().is_terminal() => rpassword::prompt_password("token: ")
            .map_err(|error| Fault::failed("cannot read the token").because(&error))?,
        None => {
            return Err(Fault::usage("nobody is there to type the token").hint("give it with --token-file"));
        }
    };
    let token = text.trim().to_owned();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Fault::usage("that is no token").hint("`swarmboot token create` prints one: sbt_…"));
    }
    Ok(token)
}

/// Forgets the login.
pub(super) fn logout() -> Result<ExitCode, Fault> {
    let text = if saved::forget()? {
        "logged out; the token itself is good until `swarmboot token revoke`"
    } else {
        "was not logged in"
    };
    talk(text);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn whoami(client: &Client, screen: &Screen) -> Result<ExitCode, Fault> {
    screen.whoami(&client.get::<WhoAmI>("/whoami").await?)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(client: &Client, screen: &Screen, command: Token) -> Result<ExitCode, Fault> {
    match command {
        Token::Create { name, role, sites, labels, expires } => {
            let expires_seconds = expires.as_deref().map(seconds).transpose()?;
            let order = TokenOrder { name, role, scope: Scope { sites, labels }, expires_seconds };
            let made: TokenMade = client.post("/tokens", &order).await?;
            screen.token_made(&made)?;
        }
        Token::List => screen.tokens(&client.get::<Vec<TokenShown>>("/tokens").await?)?,
        Token::Revoke { name } => {
            let token: TokenShown = client.delete_for(&format!("/tokens/{}", url_part(&name))).await?;
            screen.tokens(&[token])?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A span of time as whole seconds.
pub(super) fn seconds(text: &str) -> Result<u64, Fault> {
    let seconds = units::seconds(text).and_then(|seconds| u64::try_from(seconds).ok());
    seconds.ok_or_else(|| {
        Fault::usage(format!("`{}` is no time", text.escape_debug())).hint("write 90m, 12h or 7d")
    })
}
