//! The machines' routes from outside: machines from first boot to installed, orders, and hostile requests.

// A server without sockets.
mod bench;

// Relays, and what they pass on.
mod relays;

// Orders do what their dry run showed.
mod orders;

// Hostile requests.
mod strangers;

// Machines that wait for an order with an open request, by the machines' own client.
mod waiting;

// Requests as firmware makes them, over a real port.
mod firmware;

// Boot files from neighbours.
mod neighbours;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::http::{Request, Response, header};
use bytes::Bytes;
use common::hardware::{Contents, Firmware};
use common::id::{Hash, JobId, Mac};
use common::plan::Instruction;
use common::step::{EventBatch, Step, What};
use common::wire::http::Refused;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::shapes::{
    Cancel, JobState, LogQuery, MachineAction, MachineCommand, MachineState, Selection,
};
use crate::fleet::boot_policy::{Answered, Asker, BootPolicy, Sighting};
use crate::fleet::store::LogFilter;
use bench::{Bench, bytes, done, image, key, read, report, server_key};
use strangers::BOUNDS;

#[tokio::test]
async fn a_blank_machine_comes_to_its_os() {
    let bench = Bench::open();
    let (first, second) = (key(1, 1), key(1, 2));
    let blank = report(1, 1, &[Contents::Blank]);
    assert!(matches!(bench.report(blank.clone(), &first).await, Instruction::Wait { seconds: 5, .. }));
    let known = bench.fleet.machine("sn1".to_owned()).await.unwrap();
    assert_eq!((known.state, known.site.as_str()), (MachineState::Discovered, "10.0.0.0/24"));

    let answer =
        bench.order(serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}})).await.unwrap();
    assert_eq!(answer.machines[0].target.as_deref(), Some("DISK10"));
    let Instruction::Deploy(plan) = bench.report(blank, &first).await else { panic!("no plan") };
    assert_eq!(plan.attempt, 1);
    assert_eq!(bench.policy(1).await, BootPolicy::Load);
    let job = plan.job;
    assert_eq!(
        bench.told(&first, job, 1, Step::Transfer, What::Progress { done: 1, total: 9 }).await.through,
        1
    );

    // The machine loses power and the server restarts; the next boot is the next attempt.
    let bench = bench.restart().await;
    assert_eq!(bench.fleet.readmit().await.unwrap(), 1);
    assert_eq!(bench.rooms.admitted.lock()[0].key, first.public());
    bench.fleet.age().await;
    let again = report(1, 2, &[Contents::Data]);
    let Instruction::Deploy(plan) = bench.report(again, &second).await else { panic!("no plan") };
    assert_eq!((plan.job, plan.attempt), (job, 2));
    let personality = bench.rooms.admitted.lock()[1].machine().unwrap().personality.clone();
    assert_eq!(personality.hostname, "m1");
    assert!(bench.told(&second, job, 1, Step::Seal, done()).await.cancelled.is_none());
    bench.told(&second, job, 2, Step::Reboot, What::Started).await;
    assert_eq!(bench.policy(1).await, BootPolicy::BootDisk, "never a reinstall loop");

    let url = personality.confirm_url.unwrap();
    let path = url.strip_prefix("http://10.0.0.1:8069").unwrap();
    assert_eq!(bench.post(&format!("{path}0"), "x").await.status(), 403);
    assert_eq!(bench.post_json(path, "{").await.status(), 400);
    let said = serde_json::json!({
        "root": "ext4 /dev/vda3",
        "root_parts": [{"name": "vda3", "start": 36864, "disk": "vda", "serial": "S1"}],
        "seeds": [{"name": "vda4", "disk": "vda"}],
    });
    assert_eq!(bench.post_json(path, &said.to_string()).await.status(), 200);
    assert_eq!(bench.post(path, "hostname=m1").await.status(), 200);
    assert_eq!(bench.post(path, "").await.status(), 200, "cloud-init may call twice");
    let known = bench.fleet.machine("m1".to_owned()).await.unwrap();
    assert_eq!((known.state, known.deployed_image.as_deref()), (MachineState::Deployed, Some("debian")));

    let log = bench.fleet.log_page(LogFilter::default(), 0, 100).await.unwrap();
    let steps: Vec<_> = log.iter().map(|event| event.step.name().to_owned()).collect();
    for step in ["inspect", "decide", "tailor", "seal", "reboot", "confirm"] {
        assert!(steps.iter().any(|seen| seen == step), "{step} is missing in {steps:?}");
    }
    let seal = log.iter().find(|event| event.step == Step::Seal).unwrap();
    assert_eq!((seal.attempt, seal.job), (Some(2), Some(job)));
}

#[tokio::test]
async fn nobody_asked_so_its_own_disk_boots() {
    let bench = Bench::open();
    let order = bench.report(report(1, 1, &[Contents::Bootable]), &key(1, 1)).await;
    assert!(matches!(order, Instruction::BootDisk { .. }));
    assert_eq!(bench.policy(1).await, BootPolicy::BootDisk);
    bench.order(serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}})).await.unwrap();
    assert_eq!(bench.policy(1).await, BootPolicy::Load);
    let reject = |action| MachineCommand {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        action,
        dry_run: false,
    };
    bench.fleet.command(reject(MachineAction::Hold)).await.unwrap();
    assert_eq!(bench.policy(1).await, BootPolicy::BootDisk);
    let order = bench.report(report(1, 2, &[Contents::Bootable]), &key(1, 2)).await;
    assert!(matches!(order, Instruction::BootDisk { .. }), "held machines are given nothing");
}

#[tokio::test]
async fn an_open_order_takes_blank_machines_that_appear_and_no_others() {
    let bench = Bench::open();
    bench
        .order(serde_json::json!({"image": "debian", "selection": {"labels": ["site=10.0.0.0/24"]}, "open": true, "limit": 2}))
        .await
        .unwrap();
    let order = bench.report(report(1, 1, &[Contents::Bootable]), &key(1, 1)).await;
    assert!(matches!(order, Instruction::BootDisk { .. }), "somebody's OS is on it");
    for machine in 2..4 {
        let order = bench.report(report(machine, 1, &[Contents::Blank]), &key(machine, 1)).await;
        assert!(matches!(order, Instruction::Deploy(_)));
    }
    let order = bench.report(report(4, 1, &[Contents::Blank]), &key(4, 1)).await;
    assert!(matches!(order, Instruction::Wait { .. }), "the limit is reached");
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_with_a_hint() {
    let bench = Bench::open();
    bench.report(report(1, 1, &[Contents::Blank, Contents::Blank]), &key(1, 1)).await;
    let one = serde_json::json!({"machines": ["m1"]});
    let table = [
        serde_json::json!({"image": "nixos", "selection": one}),
        serde_json::json!({"image": "debian", "selection": {}}),
        serde_json::json!({"image": "debian", "selection": {"machines": ["rack1-[01-16]"]}}),
        serde_json::json!({"image": "debian", "selection": {"machines": ["rack1-[01"]}}),
        serde_json::json!({"image": "debian", "selection": {"labels": ["web"]}}),
        serde_json::json!({"image": "debian", "selection": one, "disk": "sda"}),
        serde_json::json!({"image": "debian", "selection": one, "limit": 3}),
        serde_json::json!({"image": "debian", "selection": one, "ssh_keys": ["no key"]}),
        serde_json::json!({"image": "debian", "selection": one, "no_personalise": true, "user_data": "x"}),
        serde_json::json!({"image": "debian", "selection": one}),
    ];
    for order in table {
        let refused = bench.order(order.clone()).await;
        assert!(matches!(refused, Err(crate::fleet::FleetError::Refused(_))), "{order}: {refused:?}");
    }
    for (seconds, refused) in [(24 * 3600, false), (24 * 3600 + 1, true), (u64::MAX, true)] {
        let gate = serde_json::json!({
            "image": "debian", "selection": one, "gather": 2, "gather_seconds": seconds, "dry_run": true,
        });
        let answer = bench.order(gate).await;
        let said =
            matches!(&answer, Err(crate::fleet::FleetError::Refused(why)) if why.error.contains("gate"));
        assert_eq!(said, refused, "{seconds}: {answer:?}");
    }
    let dry = serde_json::json!({"image": "debian", "selection": one, "dry_run": true});
    let answer = bench.order(dry).await.unwrap();
    assert_eq!(answer.machines[0].refused.as_deref(), Some("2 disks match"));
    assert!(bench.fleet.deployments().await.unwrap().is_empty(), "nothing was ordered");
}

#[tokio::test]
async fn a_busy_machine_takes_no_second_order_and_a_cancelled_job_stops() {
    let bench = Bench::open();
    let blank = report(1, 1, &[Contents::Blank]);
    bench.report(blank.clone(), &key(1, 1)).await;
    let order = serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}});
    let placed = bench.order(order.clone()).await.unwrap().deployment.unwrap();
    assert!(bench.order(order.clone()).await.is_err(), "it is busy");
    let Instruction::Deploy(plan) = bench.report(blank, &key(1, 1)).await else { panic!("no plan") };
    let shown = bench.fleet.cancel(placed, Cancel::default()).await.unwrap();
    assert_eq!(shown.jobs[0].state, JobState::Cancelled);
    let taken = bench.told(&key(1, 1), plan.job, 1, Step::Transfer, What::Started).await;
    assert_eq!(taken.cancelled.as_deref(), Some("an admin cancelled it"));
    assert!(bench.order(order).await.is_ok(), "it is free again");
    bench.cancel.cancel();
    bench.task.await.unwrap().unwrap();
    assert_eq!(bench.rooms.dismissed.lock()[0].0, key(1, 1).public());
}

#[tokio::test]
async fn a_site_is_observed_and_only_believed_of_processes_that_were_let_in() {
    let bench = Bench::open();
    let order = serde_json::json!({"image": "debian", "selection": {"labels": ["site=lab"]}, "open": true});
    bench.order(order).await.unwrap();
    let claims = |machine: u8, firmware| {
        let mut report = report(machine, 1, &[Contents::Blank]);
        report.site = Some("lab".to_owned());
        report.nics[0].address = Some("192.168.7.7/24".to_owned());
        report.firmware = firmware;
        report
    };
    for (machine, firmware) in [(1, Firmware::Bios), (2, Firmware::None)] {
        let order = bench.report(claims(machine, firmware), &key(machine, 1)).await;
        assert!(matches!(order, Instruction::Wait { .. }), "a claim opened an order: {order:?}");
        let id = format!("m{machine}");
        assert_eq!(bench.fleet.machine(id.clone()).await.unwrap().site, "10.0.0.0/24");
        let approve = MachineCommand {
            selection: Selection { machines: vec![id.clone()], labels: vec![] },
            action: MachineAction::Approve,
            dry_run: false,
        };
        bench.fleet.command(approve).await.unwrap();
        bench.report(claims(machine, firmware), &key(machine, 1)).await;
        let wanted = if firmware == Firmware::None { "lab" } else { "10.0.0.0/24" };
        assert_eq!(bench.fleet.machine(id).await.unwrap().site, wanted);
    }
}

#[tokio::test]
async fn who_calls_itself_something_does_not_keep_the_name_from_an_admin() {
    let bench = Bench::open();
    let mut squatter = report(1, 1, &[Contents::Blank]);
    squatter.name = Some("rack1-05".to_owned());
    bench.report(squatter.clone(), &key(1, 1)).await;
    bench.report(report(2, 1, &[Contents::Blank]), &key(2, 1)).await;
    let named = |machine: &str| MachineCommand {
        selection: Selection { machines: vec![machine.to_owned()], labels: vec![] },
        action: MachineAction::Name("rack1-05".to_owned()),
        dry_run: false,
    };
    bench.fleet.command(named("m2")).await.unwrap();
    assert_eq!(bench.fleet.machine("rack1-05".to_owned()).await.unwrap().id.to_string(), "m2");
    bench.report(squatter, &key(1, 1)).await;
    assert_eq!(bench.fleet.machine("m1".to_owned()).await.unwrap().name, "m1");
    assert!(bench.fleet.command(named("m1")).await.is_err(), "an admin's name stays");
}

/// H8: a recorded report that is replayed begins nothing.
#[tokio::test]
async fn a_report_without_a_nonce_of_this_start_is_refused() {
    let bench = Bench::open();
    let own = key(1, 1);
    let sent = bench.sent(report(1, 1, &[Contents::Blank]));
    let body = |sent: &common::hardware::SentReport| serde_json::to_vec(&own.sign(sent)).unwrap();
    assert_eq!(bench.post("/v1/report", body(&sent)).await.status(), 200);
    let nonce = read::<common::wire::http::Identity>(bench.get("/v1/identity").await).await.nonce;
    let fresh = common::hardware::SentReport { nonce, ..sent.clone() };
    assert_eq!(bench.post("/v1/report", body(&fresh)).await.status(), 200);
    for nonce in ["", "0", &"0".repeat(48)] {
        let made_up = common::hardware::SentReport { nonce: nonce.to_owned(), ..sent.clone() };
        let answer = bench.post("/v1/report", body(&made_up)).await;
        assert_eq!(answer.status(), 409);
        assert!(read::<Refused>(answer).await.error.contains("nonce"));
    }
    let bench = bench.restart().await;
    assert_eq!(bench.post("/v1/report", body(&sent)).await.status(), 409, "of an earlier start");
}

#[tokio::test]
async fn hostile_reports_are_refused_before_they_cost_anything() {
    let bench = Bench::open();
    let own = key(1, 1);
    let signed = serde_json::to_string(&own.sign(&bench.sent(report(1, 1, &[])))).unwrap();

    // With a Content-Length, and without one.
    let whole = vec![b' '; 100 << 20];
    let told = Request::post("/v1/report").header(header::CONTENT_LENGTH, whole.len());
    let answer = bench.call(told.body(Body::from(whole)).unwrap()).await;
    assert_eq!(answer.status(), 413);
    assert!(read::<Refused>(answer).await.error.contains("hardware report"));
    let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
    assert_eq!(bench.post("/v1/report", Body::from_stream(pieces)).await.status(), 413);

    for nonsense in ["", "{}", "[]", "\u{0}", "{\"payload\":1}", "GET / HTTP/1.1", &"[".repeat(100_000)] {
        let answer = bench.post("/v1/report", nonsense.to_owned()).await;
        assert_eq!(answer.status(), 400, "{}", &nonsense[..nonsense.len().min(20)]);
        read::<Refused>(answer).await;
    }
    let other = serde_json::to_string(&key(2, 1).sign(&bench.sent(report(1, 1, &[])))).unwrap();
    assert_eq!(bench.post("/v1/report", other).await.status(), 403, "signed by another key");
    let changed = signed.replace("test", "best");
    assert_eq!(bench.post("/v1/report", changed).await.status(), 403, "changed on the way");
    let mut long = report(1, 1, &[]);
    long.system.serial = "x".repeat(10_000);
    let long = serde_json::to_string(&own.sign(&bench.sent(long))).unwrap();
    assert_eq!(bench.post("/v1/report", long).await.status(), 400);

    let batch = EventBatch { key: own.public(), job: None, attempt: None, sent_at_ms: 0, events: vec![] };
    let events = serde_json::to_string(&own.sign(&batch)).unwrap();
    assert_eq!(bench.post("/v1/events", events).await.status(), 409, "nobody reported under this key");
    assert_eq!(bench.post("/v1/events", signed).await.status(), 400, "a report is no batch of events");
    assert!(bench.fleet.machines(Selection::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn events_are_taken_once_and_only_of_the_running_attempt() {
    let bench = Bench::open();
    let own = key(1, 1);
    let blank = report(1, 1, &[Contents::Blank]);
    bench.report(blank.clone(), &own).await;
    bench.order(serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}})).await.unwrap();
    let Instruction::Deploy(plan) = bench.report(blank, &own).await else { panic!("no plan") };
    let note = |text: &str| What::Note { text: text.to_owned() };
    bench.told(&own, plan.job, 1, Step::Transfer, note("one\u{1b}[2J")).await;
    assert_eq!(bench.told(&own, plan.job, 1, Step::Transfer, note("twice")).await.through, 1);
    bench.told(&own, JobId(99), 2, Step::Transfer, note("of another job")).await;
    bench.fleet.age().await;
    bench.report(report(1, 2, &[Contents::Blank]), &key(1, 2)).await;
    let batch =
        EventBatch { key: own.public(), job: Some(plan.job), attempt: None, sent_at_ms: 0, events: vec![] };
    let late = serde_json::to_string(&own.sign(&batch)).unwrap();
    assert_eq!(bench.post("/v1/events", late).await.status(), 409, "an earlier boot's key opens nothing");
    let filter = LogFilter { step: Some(Step::Transfer), ..LogFilter::default() };
    let log = bench.fleet.log_page(filter, 0, 100).await.unwrap();
    let texts: Vec<_> = log.iter().map(|event| event.what.clone()).collect();
    assert_eq!(texts, [note("one [2J")], "once, and harmless to a terminal");
}

#[tokio::test]
async fn scripts_follow_the_standing() {
    let bench = Bench::open();
    let text = |path: &'static str| async {
        String::from_utf8(bytes(bench.get(path).await).await.to_vec()).unwrap()
    };
    assert!(text("/boot.ipxe").await.contains("chain"), "who asks is asked for");
    assert!(text("/autoexec.ipxe").await.contains("chain"));
    let script = text("/boot.ipxe?mac=02-00-00-00-00-01").await;
    assert!(
        script.contains("http://10.0.0.1:8069/boot/debian-12/vmlinuz") && script.contains(" quiet "),
        "{script}"
    );
    bench.report(report(1, 1, &[Contents::Bootable]), &key(1, 1)).await;
    assert!(!text("/boot.ipxe?mac=02:00:00:00:00:01").await.contains("vmlinuz"));

    let closed = Bench::over(tempfile::tempdir().unwrap(), false);
    let answer = closed.get("/boot.ipxe?mac=02-00-00-00-00-01").await;
    assert!(!String::from_utf8_lossy(&bytes(answer).await).contains("vmlinuz"), "no discovery");
}

#[tokio::test]
async fn files_come_whole_in_part_or_as_their_length() {
    let bench = Bench::open();
    let ask = |method: &str, range: Option<&str>| {
        let mut request = Request::builder().method(method).uri("/boot/debian-12/vmlinuz");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        bench.call(request.body(Body::empty()).unwrap())
    };
    let length =
        |answer: &Response<Body>| answer.headers()[header::CONTENT_LENGTH].to_str().unwrap().to_owned();
    let whole = ask("GET", None).await;
    assert_eq!((whole.status().as_u16(), length(&whole).as_str()), (200, "1000"));
    assert_eq!(bytes(whole).await.len(), 1000);
    let head = ask("HEAD", None).await;
    assert_eq!((head.status().as_u16(), length(&head).as_str()), (200, "1000"));
    assert!(bytes(head).await.is_empty());
    let part = ask("GET", Some("bytes=256-511")).await;
    assert_eq!((part.status().as_u16(), length(&part).as_str()), (206, "256"));
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 256-511/1000");
    assert_eq!(bytes(part).await, (0..=255).collect::<Vec<u8>>());
    assert_eq!(bytes(ask("GET", Some("bytes=-1")).await).await, [231][..]);
    assert_eq!(ask("GET", Some("bytes=1000-")).await.status(), 416);

    let program = bench.get("/nbp/snponly.efi").await;
    assert_eq!(program.headers()[header::CONTENT_TYPE], "application/efi");
    assert_eq!(length(&program), "10");
    let bundle = format!("/v1/bundle/{}", Hash::of(b"bundle"));
    assert_eq!(bytes(bench.get(&bundle).await).await, "bundle");
    assert_eq!(bytes(bench.get(&format!("/v1/manifest/{}", image().id)).await).await, "SBMF");
    let deltas = bench.get(&format!("/v1/deltas/{}", image().id)).await;
    let tag = format!("\"{}\"", Hash::of(b"deltas"));
    assert_eq!(deltas.headers()[header::ETAG], tag.as_str(), "the hash that the store has");
    assert_eq!(bytes(deltas).await, "SBDT");
    for path in [
        "/boot/debian-12/../../etc/passwd",
        "/boot/debian-12/%2e%2e%2fkernel",
        "/boot/%2e%2e/vmlinuz",
        "/boot/debian-12/kit.json",
        "/nbp/..%2fsnponly.efi",
        "/v1/bundle/abc",
        "/admin/v1/machines",
        "/",
    ] {
        let answer = bench.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        read::<Refused>(answer).await;
    }
    assert_eq!(bench.get("/v1/report").await.status(), 405);
}

#[tokio::test]
async fn what_dhcp_and_tftp_saw_is_in_the_log() {
    let bench = Bench::open();
    let asker = Asker { mac: Some(Mac([2, 0, 0, 0, 0, 5])), uuid: None, serial: None };
    for _ in 0..3 {
        bench.fleet.sighting(Sighting::PowerOn {
            asker: asker.clone(),
            firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
            answer: Answered::Offered { address: Ipv4Addr::new(10, 0, 0, 9), file: None },
            relay: None,
        });
    }
    bench.fleet.sighting(Sighting::BootProgram {
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        file: "undionly.kpxe".to_owned(),
        over: "tftp",
        bytes: 70_000,
        whole: true,
    });
    let known = bench.fleet.machines(Selection::default()).await.unwrap();
    assert_eq!((known.len(), known[0].state), (1, MachineState::Discovered));
    let query = LogQuery { machines: "m1".to_owned(), ..LogQuery::default() };
    let filter = bench.fleet.log_filter(query).await.unwrap();
    let log = bench.fleet.log_page(filter, 0, 100).await.unwrap();
    assert_eq!(log.len(), 2, "said three times, logged once; and the file is known to be its own: {log:?}");

    let query = LogQuery { step: Some("loading".to_owned()), ..LogQuery::default() };
    let refused = bench.fleet.log_filter(query).await.unwrap_err().to_string();
    assert!(refused.contains("`loading`") && refused.contains("power-on, loader, inspect"), "{refused}");

    // A second NIC of the same machine sent a request as well; the machine's report shows both.
    let second = Asker { mac: Some(Mac([2, 0, 0, 0, 0, 6])), ..Asker::default() };
    let power_on = Sighting::PowerOn {
        asker: second,
        firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
        answer: Answered::Proxy { file: None },
        relay: None,
    };
    bench.fleet.sighting(power_on);
    let mut both = report(5, 1, &[Contents::Blank]);
    let mut nic = both.nics[0].clone();
    nic.mac = Mac([2, 0, 0, 0, 0, 6]);
    both.nics.push(nic);
    bench.report(both, &key(5, 1)).await;
    assert_eq!(bench.fleet.machines(Selection::default()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_open_and_close() {
    let bench = Bench::open();
    let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let taken = bind(address).await.unwrap_err();
    assert!(taken.hint().contains(&address.port().to_string()), "{taken}: {}", taken.hint());
    let cancel = CancellationToken::new();
    let open = tokio::spawn(bound.run(bench.routes.clone(), BOUNDS, cancel.clone()));
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /v1/identity HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert!(talk.await.unwrap().contains(&server_key().public().to_string()));
    // An idle connection does not keep the server from stopping.
    let _silent = std::net::TcpStream::connect(address).unwrap();
    cancel.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(8), open).await.unwrap().unwrap();

    let path = bench.dir.path().join("run/admin.sock");
    let first = bind_admin(&path).await.unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(bind_admin(&path).await, Err(HttpError::Taken(_))));
    drop(first);
    assert!(path.exists(), "as a killed server leaves it");
    assert!(bind_admin(&path).await.is_ok());
    let file = bench.dir.path().join("file");
    std::fs::write(&file, "somebody's").unwrap();
    assert!(bind_admin(&file).await.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody's");
}
