//! Fuzzes what a relay sends, or whoever says that it is one, handled as the fleet handles it once its signature is
//! right; and what a relay reads. The first byte says which: the header of a request that it passes on (`v`ia), an
//! `e`nrolment, what it says of itself (`s`tate), the `w`ord of an invitation, a server's `a`nswer.
#![no_main]

use common::text::is_format;
use common::trust::{KeyPair, Signed};
use common::wire::relay::{Enrol, Enrolled, InviteWord, StateAnswer, StateRequest, Via};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use server::api::shapes::RelayInvite;
use server::fleet::decide::Fleet;
use server::fleet::relays::Heard;
use server::fleet::state::State;
use server::fleet::testing::settings;

fuzz_target!(|body: &[u8]| {
    let Some((kind, body)) = body.split_first() else { return };
    match kind {
        b'v' => via(body),
        b'e' => enrol(body),
        b's' => state(body),
        b'w' => word(body),
        b'a' => answer(body),
        _ => {}
    }
});

const SITE: &str = "10.1.0.0/24";

fn server() -> KeyPair {
    KeyPair::from_secret([9; 32])
}

fn relay() -> KeyPair {
    KeyPair::from_secret([7; 32])
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000_000).unwrap_or_default()
}

/// A fleet that has invited a relay with the word whose public half is `relay()`'s, and enrolled it.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(State::default(), settings());
    let order = RelayInvite { site: SITE.to_owned(), name: None, expires_seconds: None };
    let (key, own) = (relay().public(), server().public());
    let Ok(_) = fleet.invite_relay(&order, key, now()) else { panic!("the site is a network") };
    let introduction = relay().sign(&common::wire::relay::Introduction { server: own, relay: key });
    let (version, wire) = ("1".to_owned(), common::wire::relay::RELAY_WIRE);
    let enrol = Enrol { relay: key, invitation: key, introduction, version, wire };
    let Ok(_) = fleet.enrol_relay(&enrol, &own, now()) else { panic!("it was invited") };
    fleet.take_effects();
    fleet
}

/// Checks that texts of a relay that reach an admin's terminal have no control characters left.
fn look_at(fleet: &mut Fleet) {
    let plain = |text: &str| !text.chars().any(|c| c.is_control() || is_format(c));
    for change in fleet.take_effects().changes {
        if let server::fleet::state::Change::Event(event) = change {
            let text = match &event.what {
                common::step::What::Note { text } | common::step::What::Done { text } => text,
                common::step::What::Failed { cause, .. } => cause,
                _ => continue,
            };
            assert!(plain(text) && plain(&event.name), "{text:?}");
        }
    }
    for shown in fleet.relays_shown(now()) {
        let shown = serde_json::to_value(shown).unwrap_or_default();
        strings(&shown, &|text| assert!(plain(text), "{text:?}"));
    }
}

fn strings(value: &serde_json::Value, look: &dyn Fn(&str)) {
    match value {
        serde_json::Value::String(text) => look(text),
        serde_json::Value::Array(all) => all.iter().for_each(|value| strings(value, look)),
        serde_json::Value::Object(all) => all.values().for_each(|value| strings(value, look)),
        _ => {}
    }
}

fn via(header: &[u8]) {
    if let Ok(signed) = serde_json::from_slice::<Signed<Via>>(header) {
        let _ = signed.open_self_signed(|via| via.relay);
    }
    let Ok(via) = serde_json::from_slice::<Via>(header) else { return };
    let table = fleet().relay_table(now());
    let Some(view) = table.of(&relay().public()) else { panic!("it is enrolled") };
    // The machine is then known by the canonical form of its address: that one has to be at the relay's site.
    assert!(!table.is_at(view, via.machine) || table.is_at(view, via.machine.to_canonical()));
}

fn enrol(body: &[u8]) {
    if let Ok(signed) = serde_json::from_slice::<Signed<Enrol>>(body) {
        let _ = signed.open_self_signed(|enrol| enrol.relay);
    }
    let Ok(enrol) = serde_json::from_slice::<Enrol>(body) else { return };
    let mut fleet = fleet();
    let taken = fleet.enrol_relay(&enrol, &server().public(), now());
    assert!(taken.is_err() || enrol.relay == relay().public(), "enrolled by chance");
    if let Err(refused) = taken {
        assert!(!refused.to_string().chars().any(|c| c.is_control() || is_format(c)), "{refused:?}");
    }
    look_at(&mut fleet);
}

fn state(body: &[u8]) {
    if let Ok(signed) = serde_json::from_slice::<Signed<StateRequest>>(body) {
        let _ = signed.open_self_signed(|request| request.relay);
    }
    let Ok(request) = serde_json::from_slice::<StateRequest>(body) else { return };
    // Under a key that the fleet knows, as that of every relay that was enrolled.
    let request = StateRequest { relay: relay().public(), ..request };
    let (mut fleet, from) = (fleet(), [10, 1, 0, 2].into());
    assert!(matches!(fleet.hear_relay(&request, now(), from, now()), Heard::Taken { .. } | Heard::Version));
    look_at(&mut fleet);
    assert!(matches!(fleet.hear_relay(&request, now(), from, now()), Heard::Replayed));
    let _ = fleet.relay_table(now());
}

fn word(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(word) = text.parse::<InviteWord>() {
        assert!(word.to_string().eq_ignore_ascii_case(text.trim()));
    }
}

fn answer(body: &[u8]) {
    let key = server().public();
    if let Ok(signed) = serde_json::from_slice::<Signed<StateAnswer>>(body) {
        let _ = signed.open(&key);
    }
    let _ = serde_json::from_slice::<Enrolled>(body);
    if let Ok(answer) = serde_json::from_slice::<StateAnswer>(body) {
        let again = serde_json::to_vec(&answer).ok().and_then(|text| serde_json::from_slice(&text).ok());
        assert_eq!(again, Some(answer));
    }
}
