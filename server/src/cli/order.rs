//! The flags of `deploy start` as an order. Touches the files that they name.

use std::path::Path;

use common::plan::Finish;
use common::user_data::UserData;

use super::args::{AtEnd, Start, Which};
use super::hooks;
use super::machine::selection;
use crate::api::shapes::{DeployOrder, Selection};
use crate::config::lifetime;
use crate::fault::Fault;

/// The order that the flags say.
///
/// # Errors
/// When they name no machine, or a file that cannot be read.
pub(super) fn order(start: Start) -> Result<DeployOrder, Fault> {
    if start.image.is_none() && start.profiles.is_empty() {
        return Err(Fault::usage("the order names no image")
            .hint("name one with --image, or a profile with --profile"));
    }
    let which = Which { machines: start.machines, labels: start.labels };
    // A profile may say which machines it is for.
    let nobody = which.machines.is_empty() && which.labels.is_empty() && !start.profiles.is_empty();
    let selection = if nobody || (start.open && which.machines.is_empty()) {
        Selection { machines: vec![], labels: which.labels }
    } else {
        selection(which)?
    };
    let expires = start.expires.as_deref().map(lifetime).transpose()?;
    let user_data = start.user_data.as_deref().map(read_bytes).transpose()?.map(UserData);
    if let Some(given) = &user_data
        && given.len() > common::limits::USER_DATA_BYTES_MAX
    {
        return Err(Fault::usage(format!("user-data of {} bytes", given.len()))
            .hint(format!("at most {} bytes are taken", common::limits::USER_DATA_BYTES_MAX)));
    }
    let mut ssh_keys = vec![];
    for given in &start.ssh_key {
        ssh_keys.extend(keys(given)?);
    }
    Ok(DeployOrder {
        image: start.image.unwrap_or_default(),
        profiles: start.profiles,
        selection,
        open: start.open,
        limit: start.limit,
        disk: start.disk,
        hostname: start.hostname,
        ssh_keys,
        user_data,
        hooks: start.hook.iter().map(|given| hooks::hook(given)).collect::<Result<_, _>>()?,
        hook_root: start.hook_root,
        no_personalise: start.no_personalise,
        no_confirm: start.no_confirm,
        finish: if start.power_off { Some(Finish::PowerOff) } else { start.at_end.map(finish) },
        max_parallel: start.max_parallel,
        max_machines: start.max_machines,
        gather: start.gather,
        gather_seconds: start.gather_seconds,
        expires_seconds: expires.map(|life| life.unwrap_or(0).unsigned_abs()),
        accept: start.accept,
        ..DeployOrder::default()
    })
}

fn finish(at_end: AtEnd) -> Finish {
    match at_end {
        AtEnd::Reboot => Finish::Reboot,
        AtEnd::PowerOff => Finish::PowerOff,
        AtEnd::Stay => Finish::Stay,
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path)
        .map_err(|error| Fault::failed(format!("cannot read {}", path.display())).because(&error))
}

fn read_text(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path)
        .map_err(|error| Fault::failed(format!("cannot read {}", path.display())).because(&error))
}

/// An SSH public key as given, or the keys in a file.
fn keys(given: &str) -> Result<Vec<String>, Fault> {
    let is_key = |line: &str| line.split_whitespace().count() >= 2 && !line.starts_with('#');
    if is_key(given) && !Path::new(given).exists() {
        return Ok(vec![given.trim().to_owned()]);
    }
    let text = read_text(Path::new(given))?;
    let keys: Vec<String> =
        text.lines().map(str::trim).filter(|line| is_key(line)).map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(Fault::usage(format!("{given} holds no SSH public key")));
    }
    Ok(keys)
}
