//! Tests of delivery over connections that break, to a server that is away, slow, or answers with errors.

use std::sync::atomic::{AtomicBool, AtomicU64};

use common::id::Hash;
use common::trust::Signed;
use common::wire::http::EventsTaken;

use super::*;
use crate::fetch::testing::{Answer, Request, TestServer};

fn pair() -> KeyPair {
    KeyPair::from_secret([9; 32])
}

fn attempt(job: u64, number: u32) -> Attempt {
    Attempt { job: JobId(job), number }
}

fn open(request: &Request) -> EventBatch {
    let signed: Signed<EventBatch> = serde_json::from_slice(&request.body).unwrap();
    signed.open(&pair().public()).unwrap()
}

/// The server's signed answer to `request`: events up to `through` are stored.
fn taken(request: &Request, through: u64, cancelled: Option<&str>) -> Signed<EventsTaken> {
    let signed: Signed<EventBatch> = serde_json::from_slice(&request.body).unwrap();
    pair().sign(&EventsTaken { batch: signed.digest(), through, cancelled: cancelled.map(str::to_owned) })
}

fn note(text: &str) -> What {
    What::Note { text: text.to_owned() }
}

fn server_of(test: &TestServer) -> Server {
    Server::new(&test.url, pair().public()).unwrap()
}

/// A server's log: each event number once, without gaps.
#[derive(Default)]
struct Log {
    through: u64,
    events: Vec<StepEvent>,
}

impl Log {
    /// Stores the events of `request` and returns the server's signed answer.
    fn take(&mut self, request: &Request) -> Signed<EventsTaken> {
        for event in open(request).events {
            if event.number > self.through {
                assert_eq!(event.number, self.through + 1, "a gap");
                self.through = event.number;
                self.events.push(event);
            }
        }
        taken(request, self.through, None)
    }
}

#[test]
fn every_event_arrives_once_and_in_order_however_the_server_behaves() {
    let log = Arc::new(Mutex::new(Log::default()));
    let inner = Arc::clone(&log);
    let mut turn = 0;
    let test = TestServer::start(move |request| {
        turn += 1;
        match turn {
            1 => Answer::Nothing,
            2 => Answer::Whole(503, vec![], b"busy".to_vec()),
            // Stored, but the answer is lost: the worst case for delivering each event once.
            3 => {
                inner.lock().take(request);
                Answer::Nothing
            }
            _ => Answer::json(&inner.lock().take(request)),
        }
    });
    let outbox = EventOutbox::start(server_of(&test), pair(), None, Backlog::default());
    for number in 0..200 {
        outbox.event(Step::Inspect, note(&format!("{number}")), None);
    }
    assert!(outbox.flush(Duration::from_secs(20)));
    let texts: Vec<What> = log.lock().events.iter().map(|event| event.what.clone()).collect();
    assert_eq!(texts, (0..200).map(|number| note(&format!("{number}"))).collect::<Vec<_>>());
}

#[test]
fn what_is_not_taken_goes_on_in_the_next_program_under_the_same_numbers() {
    let log = Arc::new(Mutex::new(Log::default()));
    let (inner, answering) = (Arc::clone(&log), Arc::new(AtomicBool::new(false)));
    let answers = Arc::clone(&answering);
    let test = TestServer::start(move |request| {
        let taken = inner.lock().take(request);
        if answers.load(std::sync::atomic::Ordering::SeqCst) { Answer::json(&taken) } else { Answer::Nothing }
    });
    let loader = EventOutbox::start(server_of(&test), pair(), None, Backlog::default());
    loader.event(Step::Loader, What::Started, None);
    assert!(!loader.flush(Duration::from_millis(700)));
    loader.event(Step::Agent, What::Started, None);
    let text = serde_json::to_string(&loader.stop()).unwrap();
    answering.store(true, std::sync::atomic::Ordering::SeqCst);

    let backlog: Backlog = serde_json::from_str(&text).unwrap();
    let before = backlog.at_ms;
    let agent = EventOutbox::start(server_of(&test), pair(), Some(attempt(4, 1)), backlog);
    agent.event(Step::Join, What::Started, None);
    assert!(agent.flush(Duration::from_secs(20)));
    let events = log.lock().events.clone();
    let steps: Vec<Step> = events.iter().map(|event| event.step.clone()).collect();
    assert_eq!(steps, [Step::Loader, Step::Agent, Step::Join]);
    assert!(events[2].at_ms >= before, "the clock goes on");
}

#[test]
fn the_last_word_of_an_attempt_is_never_told_of_the_next() {
    let log = Arc::new(Mutex::new(Vec::<EventBatch>::new()));
    let (inner, answering) = (Arc::clone(&log), Arc::new(AtomicBool::new(false)));
    let answers = Arc::clone(&answering);
    let test = TestServer::start(move |request| {
        // The server's answer to a key that is not the machine's present one: 409.
        if !answers.load(std::sync::atomic::Ordering::SeqCst) {
            return Answer::Whole(409, vec![], vec![]);
        }
        let batch = open(request);
        let through = batch.events.last().map_or(0, |event| event.number);
        inner.lock().push(batch);
        Answer::json(&taken(request, through, None))
    });
    let first = EventOutbox::start(server_of(&test), pair(), Some(attempt(4, 1)), Backlog::default());
    first.event(Step::Transfer, What::Failed { cause: "its job is over".to_owned(), last: true }, None);
    assert!(!first.flush(Duration::from_millis(500)));
    answering.store(true, std::sync::atomic::Ordering::SeqCst);
    let backlog = first.stop();
    let third = EventOutbox::start(server_of(&test), pair(), Some(attempt(4, 3)), backlog);
    third.event(Step::Join, What::Started, None);
    assert!(third.flush(Duration::from_secs(20)));
    let batches = log.lock().clone();
    assert!(batches.iter().all(|batch| batch.attempt == Some(3)), "{batches:?}");
    let told: Vec<_> = batches.iter().flat_map(|batch| &batch.events).map(|event| &event.what).collect();
    assert_eq!(told, [&What::Started]);
}

#[test]
fn nothing_is_sent_before_the_server_knows_our_key() {
    let log = Arc::new(Mutex::new(Log::default()));
    let inner = Arc::clone(&log);
    let test = TestServer::start(move |request| Answer::json(&inner.lock().take(request)));
    let outbox = EventOutbox::start_held(server_of(&test), pair(), Backlog::default());
    outbox.event(Step::Loader, What::Started, None);
    std::thread::sleep(GATHER * 2);
    assert!(test.requests().is_empty());
    outbox.release();
    assert!(outbox.flush(Duration::from_secs(10)));
    assert_eq!(log.lock().events.len(), 1);
}

#[test]
fn a_cancelled_job_is_learned_of() {
    let test = TestServer::start(|request| Answer::json(&taken(request, u64::MAX, Some("by alice"))));
    let outbox = EventOutbox::start(server_of(&test), pair(), Some(attempt(1, 1)), Backlog::default());
    assert_eq!(outbox.cancelled(), None);
    outbox.event(Step::Join, What::Started, None);
    assert!(outbox.flush(Duration::from_secs(10)));
    assert_eq!(outbox.cancelled(), Some("by alice".to_owned()));
}

#[test]
fn a_cancel_that_the_server_did_not_sign_for_this_batch_is_not_believed() {
    let forged =
        EventsTaken { batch: Hash([0; 32]), through: u64::MAX, cancelled: Some("by eve".to_owned()) };
    let plain = serde_json::to_value(&forged).unwrap();
    let by_another = serde_json::to_value(KeyPair::from_secret([8; 32]).sign(&forged)).unwrap();
    let of_another_batch = serde_json::to_value(pair().sign(&forged)).unwrap();
    for answer in [plain, by_another, of_another_batch] {
        let text = answer.to_string();
        let test = TestServer::start(move |_| Answer::json(&answer));
        let outbox = EventOutbox::start(server_of(&test), pair(), Some(attempt(1, 1)), Backlog::default());
        outbox.event(Step::Join, What::Started, None);
        assert!(!outbox.flush(Duration::from_millis(700)), "counts as delivered: {text}");
        assert_eq!(outbox.cancelled(), None, "{text}");
        assert!(outbox.last_error().is_some(), "{text}");
        assert_eq!(outbox.stop().sent.len(), 1, "{text}");
    }
}

#[test]
fn event_never_waits_and_flush_keeps_to_its_patience() {
    let served = Arc::new(AtomicU64::new(0));
    let test = TestServer::start(move |_| {
        served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1500));
        Answer::Nothing
    });
    let outbox = EventOutbox::start(server_of(&test), pair(), None, Backlog::default());
    let begun = Instant::now();
    for _ in 0..1000 {
        outbox.event(Step::Transfer, note("x"), None);
    }
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert!(!outbox.flush(Duration::from_millis(300)));
    assert!(begun.elapsed() < Duration::from_millis(1200));
}

fn state() -> State {
    State {
        last_number: 0,
        sent: vec![],
        waiting: VecDeque::new(),
        left_out: 0,
        held: false,
        urgent: false,
        stopping: false,
        cancelled: None,
        last_error: None,
    }
}

fn event(step: Step, what: What) -> StepEvent {
    StepEvent { number: 0, at_ms: 0, step, what, sources: None }
}

#[test]
fn newer_progress_replaces_older_within_one_run_of_a_step() {
    let mut state = state();
    let progress = |done| What::Progress { done, total: 9 };
    let whats = [What::Started, progress(1), progress(2), What::Started, progress(3), progress(4)];
    for what in whats {
        take(&mut state, event(Step::Transfer, what));
    }
    take(&mut state, event(Step::Gather, progress(5)));
    let kept: Vec<What> = state.waiting.iter().map(|event| event.what.clone()).collect();
    assert_eq!(kept, [What::Started, progress(2), What::Started, progress(4), progress(5)]);
}

#[test]
fn memory_is_bounded_and_what_is_left_out_is_owned_up_to() {
    let mut state = state();
    take(&mut state, event(Step::Transfer, What::Progress { done: 1, total: 2 }));
    for number in 0..KEPT_MAX + 5 {
        take(&mut state, event(Step::Join, note(&format!("{number}"))));
    }
    assert_eq!(state.waiting.len(), KEPT_MAX);
    // Dropping the progress made room for one note; the first note is still there.
    assert_eq!(state.waiting.front().unwrap().what, note("0"));
    assert_eq!(state.left_out, 5);
    number(&mut state, 0);
    state.sent.clear();
    number(&mut state, 0);
    let last = state.waiting.back().unwrap();
    assert!(matches!(&last.what, What::Note { text } if text.starts_with("5 events were left out")));
    assert_eq!(state.left_out, 0);
}
