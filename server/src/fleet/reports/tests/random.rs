//! Random fleets, from a seed: forged, replayed and contradicting reports get no plan that was not ordered.

use std::collections::BTreeSet;

use common::swarm::splitmix::SplitMix64;

use super::*;

/// Four machines, some of them ordered, and a forger who knows all their marks. Checks that an honest machine that was
/// not ordered gets no plan, that a replay begins no attempt, and that a forged report gets a plan only if it shows all
/// UUIDs and the serial number of an ordered machine. Returns the number of reports made.
fn one_world(seed: u64) -> u32 {
    let mut random = SplitMix64::new(seed);
    let mut fleet = fleet();
    let honest: Vec<Marks> = (1..=4)
        .map(|n| match random.below(4) {
            0 => Marks::bare(n),
            1 => Marks { uuid: "", ..Marks::whole(n) },
            2 => Marks { serial: String::new(), ..Marks::whole(n) },
            _ => {
                if random.below(3) == 0 {
                    Marks::whole(n).with(n + 10)
                } else {
                    Marks::whole(n)
                }
            }
        })
        .collect();
    let (mut ordered, mut reports, mut boot) = (BTreeSet::new(), 0, 1000);
    let mut recorded: Vec<(Marks, KeyPair, Timestamp, bool)> = vec![];
    for step in 0..24 {
        // All within the time for which the end of a boot is remembered, which is longer than any nonce is valid.
        let now = at(i64::from(step) * 20);
        match random.below(8) {
            0 => {
                // An admin orders for the record of an honest machine that has reported with its own marks.
                let n = random.below(2);
                let print = Fingerprint::of(honest[n].report(&key(1)).report());
                let mine = |machine: &&Machine| {
                    machine.doubts.is_empty()
                        && machine
                            .hardware
                            .as_ref()
                            .is_some_and(|known| Fingerprint::of(known.report()) == print)
                };
                let found = fleet.state.machines.values().find(mine).map(|machine| machine.id);
                if let Some(id) = found {
                    order_for(&mut fleet, id, now);
                    ordered.insert(id);
                }
            }
            1 => {
                let asker = Asker {
                    mac: Some(mac(u8::try_from(random.below(16)).unwrap())),
                    uuid: None,
                    serial: None,
                };
                let (firmware, answer) =
                    (crate::fleet::boot_policy::ClientKind::tftp("bios"), Answered::Proxy { file: None });
                fleet.sighting(Sighting::PowerOn { asker, firmware, answer, relay: None }, now);
            }
            2 => fleet.boots.age(),
            3 | 4 => {
                let n = random.below(4);
                boot += 1;
                let got = report(&mut fleet, &honest[n], &key(boot), now);
                reports += 1;
                recorded.push((honest[n].clone(), key(boot), now, !matches!(got, Got::AtWork(_))));
                if let Got::Plan(id, _) = got {
                    assert!(n < 2, "seed {seed}: machine {n} was never ordered, and got the plan of {id}");
                    assert!(ordered.contains(&id), "seed {seed}");
                }
            }
            5 if !recorded.is_empty() => {
                let (marks, key, begun, was_boot) = recorded[random.below(24) % recorded.len()].clone();
                let present = fleet.state.by_key(&key.public()).is_some();
                let got = arrive(&mut fleet, &marks, &key, Arrival { address: None, begun, gone: true }, now);
                reports += 1;
                // A report that had to wait for a silent agent may begin an attempt while its nonce is valid: it is no
                // replay.
                let fresh = !was_boot && now.duration_since(begun) <= REPORT_LIFE;
                let began = matches!(got, Got::Plan(..)) && !present && !fresh;
                assert!(!began, "seed {seed}: a repetition began an attempt");
            }
            _ => {
                let mut marks = Marks { disk: format!("DISK-{}", random.below(6)), ..Marks::default() };
                for _ in 0..=random.below(3) {
                    let of = &honest[random.below(4)];
                    marks
                        .macs
                        .extend(of.macs.iter().filter(|_| random.below(3) != 0).copied().collect::<Vec<_>>());
                }
                if random.below(3) == 0 {
                    marks.macs.push((20 + u8::try_from(random.below(4)).unwrap(), random.below(2) == 0));
                }
                if random.below(2) == 0 {
                    marks.uuid = honest[random.below(4)].uuid;
                }
                if random.below(2) == 0 {
                    marks.serial.clone_from(&honest[random.below(4)].serial);
                }
                if random.below(6) == 0 {
                    let name = ["m1", "m2", "SN-1", "ct-1"][random.below(4)];
                    marks.name = Some(name.to_owned());
                }
                // Under one of the forger's own keys.
                let own = key(60 + u64::try_from(random.below(3)).unwrap());
                let got = report(&mut fleet, &marks, &own, now);
                reports += 1;
                if let Got::Plan(id, _) = got {
                    assert!(ordered.contains(&id), "seed {seed}: {marks:?} got the plan of {id}");
                    let known = &fleet.state.machines[&id].fingerprint;
                    let shown = Fingerprint::of(marks.report(&own).report());
                    // A serial number that is not on record is no contradiction beside a UUID that agrees.
                    let serial = known.system_serial.is_none() || known.system_serial == shown.system_serial;
                    let whole = known.uuids.is_subset(&shown.uuids) && serial;
                    assert!(whole, "seed {seed}: {marks:?} got the plan of {id}, {known:?}");
                }
            }
        }
    }
    reports
}

fn worlds(wanted: u32) -> u32 {
    let (mut made, mut seed) = (0, 0);
    while made < wanted {
        made += one_world(seed);
        seed += 1;
    }
    made
}

#[test]
fn forged_reports_get_no_plan_that_was_not_ordered() {
    println!("{} reports", worlds(3_000));
}

#[test]
#[ignore = "minutes: run by tests/full"]
fn forged_reports_100_000_get_no_plan_that_was_not_ordered() {
    println!(
        "{} forged, replayed and contradicting reports, 0 plans for a machine that was not ordered",
        worlds(200_000)
    );
}
