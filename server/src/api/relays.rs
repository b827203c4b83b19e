//! The admin's routes for relays: invitations, the list, revocation; and what relays do for admins: staged images and
//! machines that are woken. Touches the fleet's handle, and the sockets of magic packets.

use axum::Json;
use axum::extract::{Path, State};

use super::admin::{Admin, Answered, JsonBody, bounded};
use super::shapes::{ImageStage, MachineChanged, MachineWake, RelayInvite, RelayInvited, RelayShown, Staged};
use crate::magic;

pub(super) async fn list(State(admin): State<Admin>) -> Answered<Vec<RelayShown>> {
    Ok(Json(admin.fleet.relays_shown().await?))
}

pub(super) async fn invite(
    State(admin): State<Admin>,
    JsonBody(invite): JsonBody<RelayInvite>,
) -> Answered<RelayInvited> {
    Ok(Json(admin.fleet.invite_relay(invite).await?))
}

pub(super) async fn revoke(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<RelayShown> {
    Ok(Json(admin.fleet.revoke_relay(bounded(name)?).await?))
}

pub(super) async fn stage(
    State(admin): State<Admin>,
    Path(image): Path<String>,
    JsonBody(order): JsonBody<ImageStage>,
) -> Answered<Vec<Staged>> {
    Ok(Json(admin.fleet.stage(bounded(image)?, order).await?))
}

pub(super) async fn wake(
    State(admin): State<Admin>,
    JsonBody(order): JsonBody<MachineWake>,
) -> Answered<Vec<MachineChanged>> {
    let (mut lines, own) = admin.fleet.wake(order).await?;
    for wake in own {
        // A packet that cannot be sent is told in the machine's own line.
        if let Err(error) = magic::wake(wake.mac, None).await {
            let line = lines.iter_mut().filter(|line| line.machine == wake.machine);
            line.for_each(|line| line.text = format!("not woken: {error}"));
        }
    }
    Ok(Json(lines))
}
