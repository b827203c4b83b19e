//! `swarmboot machine`: lists machines, and sends commands for them. Touches the admin socket.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::args::{Change, Machine, Which};
use super::client::{Client, url_part};
use super::show::{Screen, talk};
use crate::api::shapes::{
    MachineAction, MachineChanged, MachineCommand, MachineShown, MachineWake, Selection,
};
use crate::fault::Fault;

/// How many machines are requested at once.
const PAGE: usize = 100;

pub(super) async fn run(client: &Client, screen: &Screen, command: Machine) -> Result<ExitCode, Fault> {
    match command {
        Machine::List { labels } => {
            let labels = url_part(&labels.join(","));
            let machines = all(client, &labels).await?;
            screen.machines(&machines)?;
            if machines.is_empty() && !labels.is_empty() {
                let why: Option<String> = client.get(&format!("/machines/nobody?labels={labels}")).await?;
                why.iter().for_each(|why| talk(&format!("note: {why}")));
            }
            return Ok(ExitCode::SUCCESS);
        }
        Machine::Show { machine } => {
            screen.machine(&client.get(&format!("/machines/{}", url_part(&machine))).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Machine::Approve(change) => carry_out(client, screen, change, MachineAction::Approve).await?,
        Machine::Reject(change) => carry_out(client, screen, change, MachineAction::Reject).await?,
        Machine::Hold(change) => carry_out(client, screen, change, MachineAction::Hold).await?,
        Machine::Inspect(change) => carry_out(client, screen, change, MachineAction::Inspect).await?,
        Machine::Release(change) => carry_out(client, screen, change, MachineAction::Release).await?,
        Machine::Forget(change) => carry_out(client, screen, change, MachineAction::Forget).await?,
        Machine::Wake(change) => wake(client, screen, change).await?,
        Machine::Merge { machine, into, dry_run } => {
            let change = Change { dry_run, ..one(machine) };
            carry_out(client, screen, change, MachineAction::Merge { into }).await?;
        }
        Machine::Name { machine, name } => {
            carry_out(client, screen, one(machine), MachineAction::Name(name)).await?;
        }
        Machine::Label { machine, labels } => {
            carry_out(client, screen, one(machine), label_action(&labels)?).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All machines that fit `labels`, requested page by page, so that no response is too long, whatever machines have reported.
async fn all(client: &Client, labels: &str) -> Result<Vec<MachineShown>, Fault> {
    client.pages(&format!("/machines?limit={PAGE}&labels={labels}")).await
}

fn one(machine: String) -> Change {
    Change { which: Which { machines: vec![machine], labels: vec![] }, dry_run: false }
}

/// Makes the server's selection of what was typed; an empty selection is refused, never "all".
pub(super) fn selection(which: Which) -> Result<Selection, Fault> {
    if which.machines.is_empty() && which.labels.is_empty() {
        return Err(Fault::usage("no machine is named")
            .hint("name machines (m1, rack1-[01-16]) or a label (-l role=web)"));
    }
    Ok(Selection { machines: which.machines, labels: which.labels })
}

async fn carry_out(
    client: &Client,
    screen: &Screen,
    change: Change,
    action: MachineAction,
) -> Result<(), Fault> {
    let command = MachineCommand { selection: selection(change.which)?, action, dry_run: change.dry_run };
    let changed: Vec<MachineChanged> = client.post("/machines", &command).await?;
    screen.changed(&changed)
}

async fn wake(client: &Client, screen: &Screen, change: Change) -> Result<(), Fault> {
    let order = MachineWake { selection: selection(change.which)?, dry_run: change.dry_run };
    let woken: Vec<MachineChanged> = client.post("/machines/wake", &order).await?;
    screen.changed(&woken)
}

fn label_action(labels: &[String]) -> Result<MachineAction, Fault> {
    let (mut set, mut remove) = (BTreeMap::new(), vec![]);
    for label in labels {
        match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                set.insert(key.to_owned(), value.to_owned());
            }
            (None, Some(key)) if !key.is_empty() => remove.push(key.to_owned()),
            _ => {
                return Err(Fault::usage(format!("`{label}` is no label"))
                    .hint("write role=web to set a label, role- to remove it"));
            }
        }
    }
    Ok(MachineAction::Label { set, remove })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let action = label_action(&["role=web".to_owned(), "rack-".to_owned()]).unwrap();
        let MachineAction::Label { set, remove } = action else { panic!("{action:?}") };
        assert_eq!(set["role"], "web");
        assert_eq!(remove, ["rack"]);
        for wrong in ["role", "=web", "-", ""] {
            assert!(label_action(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_named_is_not_everything() {
        assert!(selection(Which::default()).is_err());
    }
}
