//! Pages of long lists, and the live stream for many readers at once, over the API's real ports. What takes time is
//! printed; what is asserted is counted. Touches the loopback, and how many files this process may have open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::hardware::CheckedHardware;
use common::id::MachineId;
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use server::api::client::{Client, Target};
use server::api::shapes::{DeploymentShown, MachineShown};
use server::fleet::identity::Fingerprint;
use server::fleet::machine::Machine;
use server::fleet::state::Change;

use super::parts::{self, Parts};
use super::{bearer, made, run_at, words};

fn get(path: &str, who: &str) -> String {
    format!("GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{who}\r\n")
}

/// The head of an answer, its body's text, and the path of the next page.
async fn page(parts: &Parts, path: &str, who: &str) -> (String, String, Option<String>) {
    let answer = parts.raw(&get(path, who)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let link = head.lines().find_map(|line| line.strip_prefix("Link: </api/v1"));
    let next = link.map(|link| link.strip_suffix(">; rel=\"next\"").unwrap().to_owned());
    (head.to_owned(), body.to_owned(), next)
}

/// The ids of a page of JSON, or of JSON lines.
fn ids(body: &str) -> Vec<String> {
    let id = |value: &serde_json::Value| value["id"].to_string().trim_matches('"').to_owned();
    match serde_json::from_str::<Vec<serde_json::Value>>(body) {
        Ok(all) => all.iter().map(id).collect(),
        // A body that is sent in chunks has the length of each on a line of its own.
        Err(_) => {
            let objects = body.lines().filter(|line| line.starts_with('{'));
            objects.map(|line| id(&serde_json::from_str(line).unwrap())).collect()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_that_name_the_next() {
    let parts = Parts::start().await;
    made::files(parts.folder());
    run_at(parts.folder(), &["image", "add", "debian-12", "disk.img"]).await;
    for number in 1..=5 {
        parts.happen(&words(&format!("report {number} blank"))).await;
        let machine = format!("m{number}");
        run_at(parts.folder(), &["deploy", "start", "--image", "debian-12", "--machines", &machine, "--yes"])
            .await;
    }
    for machine in ["m2", "m4", "m5"] {
        run_at(parts.folder(), &["machine", "label", machine, "role=web"]).await;
    }
    let wall = bearer(&parts, "wall", &["--role", "viewer"]).await;
    let webs = bearer(&parts, "webs", &["--role", "viewer", "-l", "role=web"]).await;
    for (who, path, wanted) in [
        (&wall, "/machines?limit=2", vec!["m1 m2", "m3 m4", "m5"]),
        (&wall, "/machines?limit=2&after=m3", vec!["m4 m5"]),
        (&wall, "/machines?limit=2&labels=role%20in%20(web,db)", vec!["m2 m4", "m5"]),
        (&wall, "/machines?limit=1000000&after=4", vec!["m5"]),
        (&webs, "/machines?limit=2", vec!["m2 m4", "m5"]),
        (&wall, "/deployments?limit=2", vec!["d1 d2", "d3 d4", "d5"]),
        (&wall, "/deployments?limit=3&newest=true", vec!["d5 d4 d3", "d2 d1"]),
        (&webs, "/deployments?limit=2&newest=true&after=d5", vec!["d4 d2"]),
        (&wall, "/logs?limit=3&step=inspect", vec!["1 4 7", "10 13"]),
    ] {
        let (mut found, mut next) = (vec![], Some(path.to_owned()));
        while let Some(path) = next.take() {
            let (head, body, following) = page(&parts, &path, who).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head} {body}");
            found.push(ids(&body).join(" "));
            next = following;
        }
        if path.starts_with("/logs") {
            // Numbers of events depend on what else is logged: how many there are on each page, and their order, do not.
            let numbers: Vec<u64> = found.join(" ").split(' ').map(|id| id.parse().unwrap()).collect();
            assert!(numbers.is_sorted() && numbers.len() == 5 && found.len() == 2, "{path}: {found:?}");
        } else {
            assert_eq!(found, wanted, "{path}");
        }
    }
    for (path, wanted) in [
        ("/machines?limit=0", "`0` is no length of a page"),
        ("/machines?limit=many", "`many` is no length of a page"),
        ("/deployments?after=m3", "`m3` is no number of an entry"),
        ("/logs?limit=5&follow=true", "a page of the log ends"),
        ("/logs?limit=0", "`0` is no length of a page"),
    ] {
        let (head, body, _) = page(&parts, path, &wall).await;
        assert!(head.starts_with("HTTP/1.1 400") && body.contains(wanted), "{path}: {head} {body}");
    }
    for (who, query, wanted) in [
        (&wall, "", r#"{"count":5,"nobody":null}"#),
        (&wall, "?labels=role%3Dweb", r#"{"count":3,"nobody":null}"#),
        (&wall, "?machines=m[1-2]", r#"{"count":2,"nobody":null}"#),
        (&webs, "", r#"{"count":3,"nobody":null}"#),
    ] {
        assert_eq!(page(&parts, &format!("/machines/count{query}"), who).await.1, wanted, "{query}");
    }
    let (_, none, _) = page(&parts, "/machines/count?labels=role%3Dweg", &wall).await;
    assert!(none.contains(r#""count":0,"nobody":""#) && none.contains("web"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_has_what_its_reader_may_see_and_ends_with_the_token() {
    let parts = Parts::start().await;
    for number in 1..=2 {
        parts.happen(&words(&format!("report {number} blank"))).await;
    }
    run_at(parts.folder(), &["machine", "label", "m1", "role=web"]).await;
    let wall = bearer(&parts, "wall", &["--role", "viewer"]).await;
    let webs = bearer(&parts, "webs", &["--role", "viewer", "-l", "role=web"]).await;
    let refused = parts.raw(&get("/swarm/debian", &webs)).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let absent = parts.raw(&get(&format!("/swarm/{}", "0".repeat(64)), &wall)).await;
    assert!(absent.starts_with("HTTP/1.1 404") && absent.contains("no machine takes"), "{absent}");
    let unknown = parts.raw(&get("/swarm/debian", &wall)).await;
    assert!(unknown.starts_with("HTTP/1.1 422") && unknown.contains("no image"), "{unknown}");

    let (mut all, mut part) =
        (parts.sent(&get("/live", &wall)).await, parts.sent(&get("/live", &webs)).await);
    let begun = Parts::until(&mut all, "\n\n").await;
    assert!(
        begun.contains("Content-Type: text/event-stream") && begun.contains("event: snapshot\n"),
        "{begun}"
    );
    assert!(begun.contains(r#""m":"m1""#) && begun.contains(r#""m":"m2""#), "{begun}");
    let begun = Parts::until(&mut part, "\n\n").await;
    assert!(begun.contains(r#""m":"m1""#) && !begun.contains(r#""m":"m2""#), "{begun}");

    for machine in ["m1", "m2"] {
        run_at(parts.folder(), &["machine", "hold", machine]).await;
    }
    let told = Parts::until(&mut all, r#""m":"m2""#).await;
    assert!(told.contains("event: changes\n"), "{told}");
    // The second comes into the scope, the first leaves it: this is all that whoever has it learns of the second.
    run_at(parts.folder(), &["machine", "label", "m2", "role=web"]).await;
    let told = Parts::until(&mut part, r#""m":"m2""#).await;
    assert!(told.contains(r#""held":true"#), "{told}");
    run_at(parts.folder(), &["machine", "label", "m1", "role-"]).await;
    Parts::until(&mut part, r#""gone":{"machines":["m1"]}"#).await;

    run_at(parts.folder(), &["token", "revoke", "webs"]).await;
    let mut left = vec![];
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut part, &mut left);
    assert!(tokio::time::timeout(Duration::from_secs(20), ended).await.is_ok(), "it ends with the token");
    run_at(parts.folder(), &["machine", "name", "m2", "last"]).await;
    Parts::until(&mut all, r#""name":"last""#).await;
}

/// A thousand pages are open, of which one reads: it is told of each change, and orders are answered, as if it was alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_that_nobody_reads_hold_up_nobody() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let parts = Parts::with(&machines(100)).await;
    let wall = bearer(&parts, "wall", &["--role", "viewer"]).await;
    let (live, log) = (get("/live", &wall), get("/events?since=0", &wall));
    let begun = Instant::now();
    let mut idle = vec![];
    for number in 0..1000_usize {
        let address = u8::try_from(2 + number / 50).unwrap();
        idle.push(parts.sent_from(address, if number.is_multiple_of(4) { &log } else { &live }).await);
    }
    println!("1,000 streams are open after {:.1?}", begun.elapsed());
    let mut reader = parts.sent(&live).await;
    Parts::until(&mut reader, "event: snapshot\n").await;
    let mut took = vec![];
    for number in 0..10 {
        let name = format!("box{number}");
        let begun = Instant::now();
        let named = run_at(parts.folder(), &["machine", "name", "m1", &name]).await;
        assert!(named.status.success(), "{named:?}");
        took.push(begun.elapsed());
        Parts::until(&mut reader, &format!(r#""name":"{name}""#)).await;
    }
    println!("orders meanwhile took {took:.1?}");
    // Each of them has a place, and nobody gets more than there are.
    let status = parts.raw(&get("/status", &wall)).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let mut more = vec![];
    let refused = loop {
        assert!(more.len() < 30, "there is no bound");
        let mut stream = parts.sent_from(200, &live).await;
        let answer = Parts::until(&mut stream, "\r\n\r\n").await;
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        more.push(stream);
    };
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(
        idle.len() + 1 + more.len(),
        common::limits::EVENT_STREAMS_MAX,
        "each of the idle ones has its place"
    );
    // Whoever was idle is told how things stand when it reads at last.
    let last = Parts::until(&mut idle[1], r#""name":"box9""#).await;
    assert!(last.contains("event: snapshot\n"), "{last}");
}

/// So many machines as the records have them, with hardware.
fn machines(count: u64) -> Vec<Change> {
    let hardware = Arc::new(CheckedHardware::check(parts::report(1, &["data", "blank"])).unwrap());
    let of = |number: u64| {
        let site = format!("10.0.{}.0/24", number % 50);
        let mut machine = Machine::new(MachineId(number), Fingerprint::default(), site, Timestamp::now());
        machine.name = Some(format!("rack{}-{}", number / 40, number % 40));
        machine
            .labels
            .insert("role".to_owned(), if number.is_multiple_of(3) { "web" } else { "db" }.to_owned());
        [Change::Machine(Box::new(machine)), Change::Hardware(MachineId(number), Arc::clone(&hardware))]
    };
    (1..=count).flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_machines_are_listed_by_pages_that_take_alike() {
    let parts = Parts::with(&machines(10_000)).await;
    let client = Client::new(Target::Socket(parts.folder().join("admin.sock")));
    let (mut took, mut bytes) = (vec![], 0);
    for turn in 0..10 {
        let mut after = 0;
        while after < 10_000 {
            let begun = Instant::now();
            let page: Vec<MachineShown> =
                client.get(&format!("/machines?after={after}&limit=500")).await.unwrap();
            took.push((begun.elapsed(), after));
            assert_eq!(page.first().map(|machine| machine.id.0), Some(after + 1));
            assert_eq!(page.len(), 500);
            bytes = bytes.max(serde_json::to_string(&page).unwrap().len());
            after = page.last().unwrap().id.0;
        }
        assert_eq!(took.len(), 20 * (turn + 1));
    }
    let mut order = took.clone();
    order.sort();
    let (middle, p99) = (order[order.len() / 2].0, order[order.len() * 99 / 100].0);
    println!("a page of 500 of 10,000 machines, {} KiB: median {middle:.1?}, p99 {p99:.1?}", bytes >> 10);
    // No page is dearer for being behind others: the median of the last ones is about that of the first ones.
    let median = |range: std::ops::Range<u64>| {
        let mut those: Vec<Duration> =
            took.iter().filter(|(_, after)| range.contains(after)).map(|(took, _)| *took).collect();
        those.sort();
        those[those.len() / 2]
    };
    let (first, last) = (median(0..2000), median(8000..10_000));
    assert!(last < first * 3, "the first pages {first:?}, the last {last:?}");
    let whole: Vec<MachineShown> = client.pages("/machines").await.unwrap();
    assert_eq!(whole.len(), 10_000, "who follows the links has all of them");
    let ids: Vec<u64> = whole.iter().map(|machine| machine.id.0).collect();
    assert!(ids.is_sorted() && ids.first() == Some(&1) && ids.last() == Some(&10_000));
    let listed = run_at(parts.folder(), &["machine", "list", "-l", "role=web", "-o", "json"]).await;
    assert_eq!(serde_json::from_slice::<Vec<MachineShown>>(&listed.stdout).unwrap().len(), 3333);
    assert!(client.pages::<DeploymentShown>("/deployments").await.unwrap().is_empty());
}
