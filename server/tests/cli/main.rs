//! Transcripts of the whole command line against a real server: what is typed, and what is printed, byte for byte. Owns
//! the transcripts beside this file; the program that runs is the one that is shipped. Touches temporary folders and
//! processes.
//!
//! A transcript is a script: a line `$ …` is a command at the server's host, `anna$ …` one elsewhere with the token of
//! that name, `% …` an event at a machine, and what follows is the output
//! (standard error behind `! `, the exit code in brackets unless it is 0). `SWARMBOOT_UPDATE=1 cargo test -p swarmboot
//! --test cli` writes what is printed now: look at the difference before you commit it.

#![allow(clippy::unwrap_used)]

// The server's parts, assembled as by `serve`, without its ports.
mod parts;

// Pages and streams for many.
mod many;

// The log as a stream, and orders that are sent again.
mod requests;

// Images that are sent over lines that break.
mod uploads;

// Holds every answer of the server to its document.
mod described;

// The files that the commands name: an image, a kernel, keys.
mod made;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use parts::Parts;

/// The program, without environment variables that could change its output.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmboot"));
    command.env_clear().env("COLUMNS", "80").env("NO_COLOR", "1").env("PATH", "/usr/bin:/bin");
    command.env("SWARMBOOT_SOCKET", folder.join("admin.sock")).env("SWARMBOOT_STATE", folder.join("served"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Whoever types a command on another host: what the environment there says of the server and the token.
type Elsewhere = [(&'static str, String); 3];

fn elsewhere(parts: &Parts, token: String) -> Elsewhere {
    let (url, fingerprint) = parts.api().clone();
    [("SWARMBOOT_SERVER", url), ("SWARMBOOT_FINGERPRINT", fingerprint), ("SWARMBOOT_TOKEN", token)]
}

/// The program on another host.
fn program_elsewhere(folder: &Path, elsewhere: &Elsewhere) -> Command {
    let mut command = program(folder);
    command.env_remove("SWARMBOOT_SOCKET").envs(elsewhere.clone());
    command
}

/// Runs one command on the server's host.
fn run(folder: &Path, words: &[String]) -> String {
    shown(folder, &program(folder).args(words).output().unwrap())
}

/// The output and exit code of a command, as a transcript has them.
fn shown(folder: &Path, done: &Output) -> String {
    let mut text = masked(&String::from_utf8_lossy(&done.stdout), folder);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str("(no end of line)\n");
    }
    for line in masked(&String::from_utf8_lossy(&done.stderr), folder).lines() {
        writeln!(text, "! {line}").unwrap();
    }
    match done.status.code() {
        Some(0) => {}
        Some(code) => writeln!(text, "[{code}]").unwrap(),
        None => writeln!(text, "[{}]", done.status).unwrap(),
    }
    text
}

/// Splits a line into arguments; single quotes keep spaces.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted
        .flat_map(|(part, text)| match part % 2 {
            0 => text.split_whitespace().map(str::to_owned).collect(),
            _ => vec![text.to_owned()],
        })
        .collect()
}

/// Masks what differs from run to run: this run's folder, times, and the version.
fn masked(text: &str, folder: &Path) -> String {
    let text = text.replace(folder.to_str().unwrap(), "<folder>");
    let text = text.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let text =
        text.replace(&format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")), "\"version\":\"<version>\"");
    let text = text.replace(&format!("version  {}", env!("CARGO_PKG_VERSION")), "version  <version>");
    let text = text.replace(&format!("swarmboot {}\n", env!("CARGO_PKG_VERSION")), "swarmboot <version>\n");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.char_indices().map(|(at, _)| at).find(|at| time(&rest[*at..]).is_some()) {
        let long = time(&rest[at..]).unwrap_or_default();
        out.push_str(&rest[..at]);
        // In a table the width matters, so a time is masked by one of the same width.
        let is_shown = rest.as_bytes().get(at + 10) == Some(&b' ');
        out.push_str(if is_shown { "0000-00-00 00:00:00" } else { "<time>" });
        out.push_str(if is_shown && long > 20 {
            ".000Z"
        } else if is_shown {
            "Z"
        } else {
            ""
        });
        rest = &rest[at + long..];
    }
    out + rest
}

/// An invitation or a token, which is another one each time, or any other word as it is.
fn word(text: &str) -> String {
    let plain = text.trim_end();
    let is_invitation = plain.len() == 104 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    match token_in(text) {
        Some(token) => text.replace(token, "<token>"),
        None if is_invitation => text.replace(plain, "<word>"),
        None => text.to_owned(),
    }
}

/// The token in `text`, if there is one.
fn token_in(text: &str) -> Option<&str> {
    let token = text.get(text.find("sbt_")?..)?.get(..68)?;
    token[4..].bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(token)
}

/// The length of the time that `text` begins with: `2026-11-27 15:47:23Z`, `2026-11-27T15:47:23.123456Z`.
fn time(text: &str) -> Option<usize> {
    let bytes = text.as_bytes().get(..19)?;
    let is_time = bytes.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b' '),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !is_time {
        return None;
    }
    let fraction = text[19..].bytes().take_while(|byte| *byte == b'.' || byte.is_ascii_digit()).count();
    text[19 + fraction..].starts_with('Z').then_some(20 + fraction)
}

fn transcript(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name)
}

/// Fails where `now` differs from the transcript, with the first line that differs; or writes it.
fn compare(name: &str, now: &str) {
    let path = transcript(name);
    if std::env::var_os("SWARMBOOT_UPDATE").is_some() {
        std::fs::write(path, now).unwrap();
        return;
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    let line = then.lines().zip(now.lines()).position(|(then, now)| then != now);
    let line = line.unwrap_or_else(|| then.lines().count().min(now.lines().count()));
    let of = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
    assert!(
        then == now,
        "server/tests/cli/{name}:{}: the command line prints something else\n  was: {}\n  is:  {}\n\
         SWARMBOOT_UPDATE=1 writes what it prints now",
        line + 1,
        of(&then),
        of(now)
    );
}

/// Runs the commands and events of a transcript, and compares the output.
async fn play(name: &str) {
    let parts = Parts::start().await;
    made::files(parts.folder());
    let script = std::fs::read_to_string(transcript(name)).unwrap();
    let mut now = String::new();
    let mut tokens: HashMap<String, String> = HashMap::new();
    for line in script.lines() {
        if let Some((who, typed)) = line.split_once("$ swarmboot").filter(|(who, _)| !who.contains(' ')) {
            let (folder, typed) = (parts.folder().to_owned(), words(typed));
            let mut command = if who.is_empty() {
                program(&folder)
            } else {
                // A name without a token shows none that was ever made.
                let token = tokens.get(who).cloned().unwrap_or_else(|| format!("sbt_{who}"));
                program_elsewhere(&folder, &elsewhere(&parts, token))
            };
            command.args(&typed);
            let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            if let ([noun, verb, name, ..], Some(token)) =
                (typed.as_slice(), token_in(&String::from_utf8_lossy(&done.stdout)))
                && (noun.as_str(), verb.as_str()) == ("token", "create")
            {
                tokens.insert(name.clone(), token.to_owned());
            }
            let came = shown(&folder, &done);
            writeln!(now, "{line}\n{came}").unwrap();
        } else if let Some(happens) = line.strip_prefix("% ") {
            let came = parts.happen(&words(happens)).await;
            writeln!(now, "{line}\n{came}\n").unwrap();
        } else if line.starts_with('#') {
            writeln!(now, "{line}\n").unwrap();
        }
    }
    compare(name, &format!("{}\n", now.trim_end()));
    assert!(parts.verdict() > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_an_empty_server_to_orders_and_their_end() {
    play("orders.txt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_from_their_mistakes_to_what_stays_of_them() {
    play("profiles.txt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_what_from_another_host() {
    play("access.txt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_kept_and_holds_to_its_certificate() {
    let parts = Parts::start().await;
    let folder = parts.folder().to_owned();
    let (url, fingerprint) = parts.api().clone();
    let made = run_at(&folder, &["token", "create", "anna", "--role", "viewer"]).await;
    let token = token_in(&String::from_utf8_lossy(&made.stdout)).unwrap().to_owned();
    std::fs::write(folder.join("token"), format!("{token}\n")).unwrap();
    let home = |words: Vec<String>| {
        let mut command = program(&folder);
        command.env_remove("SWARMBOOT_SOCKET").env("HOME", &folder).args(words);
        tokio::task::spawn_blocking(move || {
            let done = command.output().unwrap();
            (done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
        })
    };
    let typed = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    // Nobody can compare the fingerprint: it is shown, and nothing is kept.
    let (code, said) = home(typed(&format!("login {url} --token-file token"))).await.unwrap();
    assert!(code == Some(2) && said.contains(&fingerprint), "{said}");
    let other = fingerprint.replace(':', "").chars().rev().collect::<String>();
    let (code, said) =
        home(typed(&format!("login {url} --token-file token --fingerprint {other}"))).await.unwrap();
    assert!(code == Some(1) && said.contains("another certificate") && said.contains(&fingerprint), "{said}");
    let login = format!("login {url} --token-file token --fingerprint {fingerprint}");
    let (code, said) = home(typed(&login)).await.unwrap();
    assert!(code == Some(0) && said.contains("anna: viewer, for everything"), "{said}");
    let kept = folder.join(".config/swarmboot/login.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (_, said) = home(typed("whoami")).await.unwrap();
    assert!(said.starts_with("anna: viewer"), "{said}");
    // An environment without the token's server asks for one.
    let (code, said) = home(typed("--server https://127.0.0.1:1 whoami")).await.unwrap();
    assert!(code == Some(2) && said.contains("there is no token for https://127.0.0.1:1"), "{said}");
    let (_, said) = home(typed("logout")).await.unwrap();
    assert!(said.contains("logged out") && !kept.exists(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_and_a_browser_get() {
    let parts = Parts::start().await;
    let made = run_at(parts.folder(), &["token", "create", "chief", "--role", "admin"]).await;
    let token = token_in(&String::from_utf8_lossy(&made.stdout)).unwrap().to_owned();
    let ask = async |line: &str, header: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        );
        parts.raw(&request).await
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (header, why) in [
        ("", "no token was shown"),
        ("Authorization: Basic YTpi\r\n", "holds no token"),
        ("Authorization: Bearer\r\n", "holds no token"),
        ("Authorization: Bearer sbt_0000\r\n", "not known here"),
        ("Cookie: token=sbt_0000\r\n", "no token was shown"),
    ] {
        for line in ["GET /api/v1/status", "POST /api/v1/deployments", "GET /nowhere"] {
            let answer = ask(line, header, "{}").await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{header} {line}: {answer}");
            assert!(answer.contains(why) && answer.contains("application/problem+json"), "{answer}");
        }
    }
    // The page itself holds nothing, so a browser may load it before anybody has signed in.
    let page = ask("GET /", "", "").await.to_lowercase();
    assert!(page.starts_with("http/1.1 200") && page.contains("<title>swarmboot</title>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'self'; base-uri 'none'"), "{page}");
    let answer = ask("GET /api/v1/status", &bearer, "").await.to_lowercase();
    for header in [
        "content-security-policy: default-src 'self'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "cache-control: no-store",
    ] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    assert!(answer.starts_with("http/1.1 200") && !answer.contains("access-control"), "{answer}");
    // Files of the server's host are no matter for anybody elsewhere, whatever the role.
    let path = ask("POST /api/v1/images", &bearer, r#"{"name":"x","path":"/etc/shadow"}"#).await;
    assert!(path.starts_with("HTTP/1.1 403") && path.contains("a file of the server's host"), "{path}");
    let kit =
        ask("POST /api/v1/kits", &bearer, r#"{"name":null,"kernel":null,"sources":[{"folder":"/"}]}"#).await;
    assert!(kit.starts_with("HTTP/1.1 403") && kit.contains("a file of the server's host"), "{kit}");
    let typo = ask("POST /api/v1/profiles", &bearer, r#"{"name":"x","text":"imgae = 1"}"#).await;
    assert!(typo.starts_with("HTTP/1.1 422") && typo.contains("1:1 there is no setting `imgae`"), "{typo}");
    let wrong = ask("DELETE /api/v1/status", &bearer, "").await.to_lowercase();
    assert!(wrong.starts_with("http/1.1 405") && wrong.contains("allow: get,head"), "{wrong}");
    assert!(wrong.contains("application/problem+json"), "{wrong}");
}

/// A token of `role`, with further flags, as a header.
async fn bearer(parts: &Parts, name: &str, flags: &[&str]) -> String {
    let made = run_at(parts.folder(), &[&["token", "create", name], flags].concat()).await;
    format!("Authorization: Bearer {}\r\n", token_in(&String::from_utf8_lossy(&made.stdout)).unwrap())
}

async fn run_at(folder: &Path, words: &[&str]) -> Output {
    let mut command = program(folder);
    command.args(words);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_for_programs() {
    play("json.txt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_and_what_to_do() {
    play("errors.txt").await;
}

/// The help of the program and of each of its commands.
#[test]
fn every_command_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut now = String::new();
    let mut left = vec![vec![]];
    while let Some(command) = left.pop() {
        let typed = [command.as_slice(), &["--help".to_owned()]].concat();
        let said = run(folder.path(), &typed);
        writeln!(now, "$ swarmboot {}\n{said}", typed.join(" ")).unwrap();
        let listed = said.split_once("Commands:\n").map_or("", |(_, after)| after);
        let names = listed.lines().take_while(|line| !line.is_empty());
        // The name of a command is indented by two columns; a line that is indented more continues a description.
        let names = names.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        let deeper = names.map(|name| [command.as_slice(), &[name.to_owned()]].concat());
        left.extend(deeper.collect::<Vec<_>>().into_iter().rev());
    }
    compare("help.txt", &now);
    for shell in ["bash", "zsh", "fish"] {
        let done = program(folder.path()).args(["completions", shell]).output().unwrap();
        assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("deploy"), "{shell}");
    }
}

#[test]
fn what_differs_from_run_to_run_is_masked() {
    let folder = Path::new("/tmp/x");
    let same = [
        ("a 2026-11-27 15:47:23Z b", "a 0000-00-00 00:00:00Z b"),
        ("2026-11-27 15:47:23.123Z", "0000-00-00 00:00:00.000Z"),
        ("\"2026-11-27T15:47:23.123456Z\",é", "\"<time>\",é"),
        ("2026-11-27", "2026-11-27"),
        ("/tmp/x/disk.img", "<folder>/disk.img"),
    ];
    for (text, wanted) in same {
        assert_eq!(masked(text, folder), wanted);
    }
    assert_eq!(words("a 'b c' d"), ["a", "b c", "d"]);
}
