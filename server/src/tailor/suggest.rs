//! Core: suggests a rule that covers one disk of a machine and no other, for a hint. Each suggestion has been parsed
//! and applied to all disks of the machine. Touches `disk_rule`.

use common::hardware::{Bus, Disk};

use super::disk_rule::TargetRule;

/// A rule with as few conditions as possible that covers `disk` and no other of `all`, of which it must be one by
/// address; `None` where no rule tells them apart.
pub(super) fn rule_for(disk: &Disk, all: &[Disk]) -> Option<String> {
    let marks = [
        ("serial", disk.serial.trim()),
        ("wwn", disk.wwn.trim()),
        ("path", disk.path.trim()),
        ("model", disk.model.trim()),
    ];
    let conditions: Vec<String> = marks
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        // A comma would end the condition, so it is written as a star, which matches any text.
        .map(|(key, value)| format!("{key}={}", value.replace(',', "*")))
        .chain([format!("size={}", disk.size)])
        .chain((disk.bus != Bus::Other).then(|| format!("bus={}", disk.bus)))
        .collect();
    let pairs = || {
        conditions.iter().enumerate().flat_map(|(at, first)| {
            conditions[at + 1..].iter().map(move |second| format!("{first},{second}"))
        })
    };
    conditions.iter().cloned().chain(pairs()).chain([conditions.join(",")]).find(|text| {
        let Ok(rule) = text.parse::<TargetRule>() else { return false };
        let mut covered = all.iter().filter(|other| rule.covers(other));
        covered.next().is_some_and(|one| std::ptr::eq(one, disk)) && covered.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::disk;
    use super::*;

    #[test]
    fn what_is_suggested_means_one_disk() {
        let plain = disk("sda", Bus::Ata, 1 << 30);
        let named = |serial: &str, model: &str, path: &str| Disk {
            serial: serial.to_owned(),
            model: model.to_owned(),
            path: path.to_owned(),
            ..plain.clone()
        };
        let table = [
            // A serial number of its own; one that is shared; one that another one begins with.
            (vec![named("A", "M", "p1"), named("B", "M", "p2")], Some("serial=A")),
            (vec![named("0123", "M", "p1"), named("0123", "M", "p2")], Some("path=p1")),
            (vec![named("A", "M", "p1"), named("AB", "M", "p2")], Some("serial=A")),
            // A comma ends a condition, so it is written as a star.
            (vec![named("A,1", "M", ""), named("B", "M", "")], Some("serial=A*1")),
            (vec![named("", "Fast, Inc", ""), named("", "Slow, Inc", "")], Some("model=Fast* Inc")),
            // No mark alone is unique, but two together are.
            (vec![named("A", "M", ""), named("A", "N", ""), named("B", "M", "")], Some("serial=A,model=M")),
            (vec![named("A", "M", "p"), named("A", "M", "p")], None),
            (vec![named("", "", ""), named("", "", "")], None),
            // A removable disk needs a condition on its serial number, WWN, path or bus.
            (
                vec![Disk { removable: true, ..named("", "Stick", "p1") }, named("A", "M", "p2")],
                Some("path=p1"),
            ),
            (
                vec![Disk { removable: true, ..named("", "Stick", "") }, named("A", "M", "p2")],
                Some("model=Stick,bus=ata"),
            ),
        ];
        for (disks, wanted) in table {
            assert_eq!(rule_for(&disks[0], &disks).as_deref(), wanted, "{disks:?}");
        }
        let sizes = [named("", "", ""), Disk { size: 2 << 30, ..named("", "", "") }];
        assert_eq!(rule_for(&sizes[0], &sizes).as_deref(), Some("size=1073741824"));
    }
}
