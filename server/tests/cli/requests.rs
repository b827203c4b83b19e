//! The log as a stream, and orders that are sent again: requests as a program sends them, with each caller's token. Touches
//! a temporary folder and the server's parts.

use server::api::client::{Client, Target};

use super::parts::Parts;
use super::{bearer, made, run_at, token_in, words};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_a_stream_that_goes_on_where_it_broke_off() {
    let parts = Parts::start().await;
    for machine in ["1", "2"] {
        parts.happen(&["report".to_owned(), machine.to_owned(), "blank".to_owned()]).await;
    }
    let token = async |words: &[&str]| {
        let made = run_at(parts.folder(), &[&["token", "create"], words].concat()).await;
        token_in(&String::from_utf8_lossy(&made.stdout)).unwrap().to_owned()
    };
    run_at(parts.folder(), &["machine", "label", "m2", "role=web"]).await;
    let (wall, webs) = (
        token(&["wall", "--role", "viewer"]).await,
        token(&["webs", "--role", "viewer", "-l", "role=web"]).await,
    );
    let ask = |token: &str, query: &str, header: &str| {
        format!(
            "GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{header}\r\n"
        )
    };
    let ids = |text: &str| -> Vec<u64> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
    };
    // One that nobody reads, while the others go on.
    let mut idle = parts.sent(&ask(&wall, "?since=0", "")).await;
    let mut all = parts.sent(&ask(&wall, "?since=0", "")).await;
    let begun = Parts::until(&mut all, "made the token webs").await;
    assert!(begun.contains("text/event-stream") && ids(&begun).starts_with(&[1, 2, 3]), "{begun}");
    for n in 0..400 {
        run_command(&parts, n).await;
    }
    let more = Parts::until(&mut all, "named box399").await;
    let seen = [ids(&begun), ids(&more)].concat();
    let wanted: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, wanted, "none is missing, and none comes twice");
    assert_eq!(
        ids(&Parts::until(&mut idle, "named box399").await),
        wanted,
        "whoever was slow has all of them too"
    );
    // After a break, from the last one that was seen; and only new ones where nothing is said.
    let mut again = parts.sent(&ask(&wall, "?since=1", "Last-Event-ID: 400\r\n")).await;
    assert_eq!(ids(&Parts::until(&mut again, "id: 402").await)[..2], [401, 402]);
    let mut new = parts.sent(&ask(&wall, "", "")).await;
    let mut mine = parts.sent(&ask(&webs, "?since=0", "")).await;
    Parts::until(&mut mine, "labels: role=web").await;
    run_at(parts.folder(), &["machine", "hold", "m1"]).await;
    run_at(parts.folder(), &["machine", "hold", "m2"]).await;
    assert_eq!(ids(&Parts::until(&mut new, "\"m2\"").await), [seen.len() as u64 + 1, seen.len() as u64 + 2]);
    let of_mine = Parts::until(&mut mine, "held: no job").await;
    assert!(!of_mine.contains("\"m1\"") && !of_mine.contains("made the token"), "{of_mine}");
}

/// Names machine 1 once more.
async fn run_command(parts: &Parts, number: u32) {
    let client = Client::new(Target::Socket(parts.folder().join("admin.sock")));
    let order =
        serde_json::json!({"selection": {"machines": ["m1"]}, "action": {"name": format!("box{number}")}});
    client.post::<serde_json::Value>("/machines", &order).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_sent_again_is_carried_out_once() {
    let parts = Parts::start().await;
    made::files(parts.folder());
    run_at(parts.folder(), &["image", "add", "debian-12", "disk.img"]).await;
    for number in ["1", "2"] {
        parts.happen(&words(&format!("report {number} blank"))).await;
    }
    let anna = bearer(&parts, "anna", &["--role", "operator"]).await;
    let bert = bearer(&parts, "bert", &["--role", "operator"]).await;
    let order = async |who: &str, key: &str, machine: &str| {
        let body = format!(r#"{{"image":"debian-12","selection":{{"machines":["{machine}"]}}}}"#);
        let head = "POST /api/v1/deployments HTTP/1.1\r\nHost: x\r\nConnection: close";
        let length = body.len();
        let answer = parts
            .raw(&format!("{head}\r\n{who}Idempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), body.to_owned())
    };
    // Twice at once, as from a client whose connection broke, and once more.
    let (first, second) = tokio::join!(order(&anna, "k1", "m1"), order(&anna, "k1", "m1"));
    assert!(first.0 == "200" && first.1.contains(r#""deployment":"d1""#), "{first:?}");
    assert_eq!(first, second);
    assert_eq!(order(&anna, "k1", "m1").await, first);
    let (status, body) = order(&anna, "k1", "m2").await;
    assert!(status == "422" && body.contains("another order was given under this"), "{body}");
    let (status, body) = order(&bert, "k1", "m1").await;
    assert!(status == "422" && body.contains("busy with job j1"), "a key is its caller's own: {body}");
    let (status, body) = order(&anna, &"k".repeat(129), "m2").await;
    assert!(status == "400" && body.contains("makes no sense"), "{body}");
    let listed = run_at(parts.folder(), &["deploy", "list", "-o", "json"]).await;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_shows_what_is_in_scope_and_ends_with_the_token() {
    let parts = Parts::start().await;
    for number in ["1", "2"] {
        parts.happen(&words(&format!("report {number} blank"))).await;
    }
    run_at(parts.folder(), &["machine", "label", "m1", "role=web"]).await;
    let webs = bearer(&parts, "webs", &["--role", "viewer", "-l", "role=web"]).await;
    let ask =
        |path: &str| format!("GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{webs}\r\n");
    let refused = parts.raw(&ask("/swarm")).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let follow = ask("/logs?follow=true");
    let meanwhile = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for machine in ["m1", "m2"] {
            run_at(parts.folder(), &["machine", "hold", machine]).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        run_at(parts.folder(), &["token", "revoke", "webs"]).await;
    };
    let followed =
        async { tokio::time::timeout(std::time::Duration::from_secs(20), parts.raw(&follow)).await };
    let (followed, ()) = tokio::join!(followed, meanwhile);
    let followed = followed.expect("it ends when the token is revoked");
    assert!(followed.starts_with("HTTP/1.1 200") && followed.contains("held"), "{followed}");
    assert!(!followed.contains(r#""machine":"m2""#) && !followed.contains("token"), "{followed}");
}
