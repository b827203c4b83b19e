//! A simulated day of use: the fleet over real records, without a network. Machines report, are ordered, send events,
//! are cancelled, call home; machines that nobody let in report and are seen; the server restarts every hour. The
//! numbers of machines, events and open descriptors, and the memory, must not grow; orders are kept for ever and do.

use std::sync::Arc;

use jiff::SignedDuration;

use super::*;

/// How long events are kept here, much less than the day.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
const FLEET: u8 = 4;
/// Machines in a minute that nobody let in: both kinds reach their limits in sixteen hours.
const STRANGERS: u64 = 16;

/// Row counts and sizes; `used` in bytes.
#[derive(Debug, Clone, Copy)]
struct Size {
    machines: i64,
    events: i64,
    orders: i64,
    used: u64,
    descriptors: usize,
    resident_kib: u64,
}

fn size(records: &Records) -> Size {
    let count = |table: &str| {
        records.connection.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).unwrap()
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    Size {
        machines: count("machines"),
        events: count("events"),
        orders: count("deployments"),
        used: records.used_bytes().unwrap(),
        descriptors: descriptors_of(&records.path),
        resident_kib: resident.trim().trim_end_matches("kB").trim().parse().unwrap_or(0),
    }
}

/// Open descriptors of the file `records` and of those that SQLite puts beside it. Those of the whole process say nothing
/// where other tests run beside this one.
fn descriptors_of(records: &std::path::Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let names = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with(&*records.to_string_lossy())).count()
}

/// A hash of the text of [`plain`]. The text itself has many MiB, which would count as memory in use.
fn digest(state: &State) -> blake3::Hash {
    struct Into(blake3::Hasher);
    impl std::fmt::Write for Into {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut into = Into(blake3::Hasher::new());
    write_plain(state, &mut into).unwrap();
    into.0.finalize()
}

/// A machine that nobody let in sends a report, or only asks to network-boot.
fn stranger(fleet: &mut Fleet, number: u64, now: Timestamp) {
    let [_, _, _, _, a, b, c, d] = number.to_be_bytes();
    let mac = Mac([2, 7, a, b, c, d]);
    if number.is_multiple_of(3) {
        let asker = Asker { mac: Some(mac), uuid: None, serial: None };
        let answer = Answered::Proxy { file: None };
        fleet.sighting(
            Sighting::PowerOn {
                asker,
                firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
                answer,
                relay: None,
            },
            now,
        );
        return;
    }
    let mut forged = report(1, 1).report().clone();
    let mut secret = [77; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    forged.key = KeyPair::from_secret(secret).public();
    forged.system.serial = format!("FORGED{number}");
    forged.nics[0].mac = mac;
    let forged = Arc::new(CheckedHardware::check(forged).unwrap());
    fleet.report(&forged, Some(std::net::IpAddr::from([10, 9, 9, d])), now);
}

/// The events of one minute.
fn minute(fleet: &mut Fleet, number: u64, now: Timestamp) {
    let machine = u8::try_from(number % u64::from(FLEET)).unwrap() + 1;
    let boot = u8::try_from(number / 7 % 3).unwrap();
    let told = |step, what| Deed::Told(machine, boot, step, what);
    let done = || What::Done { text: "ok".to_owned() };
    let last = fleet.state.last_deployment;
    let mut deeds = vec![Deed::Report(machine, boot), Deed::Pass(1)];
    match number % 6 {
        0 => deeds.extend([Deed::Order(machine), Deed::Report(machine, boot)]),
        1 => deeds.push(told(Step::Transfer, What::Progress { done: number % 9, total: 9 })),
        2 => deeds.extend([told(Step::Seal, done()), told(Step::Reboot, done()), Deed::Confirm(machine)]),
        3 => deeds.push(Deed::Cancel(last)),
        4 => deeds.push(Deed::Sighting(machine)),
        _ => deeds.push(told(Step::Transfer, What::Failed { cause: "c".to_owned(), last: false })),
    }
    for deed in deeds {
        perform(fleet, deed, number, now);
    }
    for one in 0..STRANGERS {
        stranger(fleet, number * STRANGERS + one, now);
    }
}

fn use_for(hours: u64) -> Vec<Size> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let mut records = Records::open(&path).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let mut now = Timestamp::from_second(1_000_000).unwrap();
    let mut sizes = Vec::new();
    for number in 1..=hours * 60 {
        now = now.checked_add(SignedDuration::from_mins(1)).unwrap();
        minute(&mut fleet, number, now);
        records.commit(&fleet.take_effects().changes).unwrap();
        records.forget_events(now.checked_sub(KEPT).unwrap()).unwrap();
        if number.is_multiple_of(60) {
            drop(records);
            records = Records::open(&path).unwrap();
            let state = records.load().unwrap();
            assert_eq!(digest(&state), digest(&fleet.state), "nothing is lost by a restart");
            fleet = Fleet::new(state, settings());
            sizes.push(size(&records));
            println!("after {} h: {:?}", number / 60, sizes.last());
        }
    }
    sizes
}

/// Checks that events and descriptors are not more at the end than after the first hours.
fn is_flat(sizes: &[Size], early: usize) {
    let (first, last) = (sizes[early], *sizes.last().unwrap());
    assert!(last.events <= first.events + first.events / 4, "{first:?}\n{last:?}");
    assert!(last.descriptors <= first.descriptors, "{first:?}\n{last:?}");
    assert!(first.orders < last.orders, "something was ordered");
}

#[test]
fn some_hours_leave_nothing_behind() {
    is_flat(&use_for(3), 1);
}

#[test]
#[ignore = "takes minutes: run ./tests/full day"]
fn a_day_leaves_nothing_behind() {
    let sizes = use_for(24);
    is_flat(&sizes, 3);
    let (first, last) = (sizes[17], sizes[23]);
    let strangers = common::limits::STRANGERS_MAX + common::limits::BARE_SIGHTINGS_MAX;
    assert!(
        usize::try_from(first.machines).unwrap() >= strangers,
        "strangers have reached their bounds: {first:?}"
    );
    let grown = f64::from(u32::try_from(last.resident_kib).unwrap())
        / f64::from(u32::try_from(first.resident_kib).unwrap());
    println!(
        "memory {grown:.2} times that of six hours before; records {} and {} KiB",
        first.used >> 10,
        last.used >> 10
    );
    assert!(grown < 1.25, "{first:?}\n{last:?}");
    assert!(usize::try_from(last.machines).unwrap() <= strangers + 8, "{last:?}");
}
