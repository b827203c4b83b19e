//! The admin's routes for relays: invitations, the list, revocation; and what relays do for admins: staged images and
//! machines that are woken. Touches the fleet's handle, and the sockets of magic packets.

use axum::Json;
use axum::extract::Path;

use super::admin::{Answered, JsonBody, bounded};
use super::caller::Asked;
use super::shapes::{ImageStage, MachineChanged, MachineWake, RelayInvite, RelayInvited, RelayShown, Staged};
use crate::magic;

pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<RelayShown>> {
    Ok(Json(admin.fleet.relays_shown().await?))
}

pub(super) async fn invite(
    Asked(admin): Asked,
    JsonBody(invite): JsonBody<RelayInvite>,
) -> Answered<RelayInvited> {
    Ok(Json(admin.fleet.invite_relay(invite).await?))
}

pub(super) async fn revoke(Asked(admin): Asked, Path(name): Path<String>) -> Answered<RelayShown> {
    Ok(Json(admin.fleet.revoke_relay(bounded(name)?).await?))
}

pub(super) async fn stage(
    Asked(admin): Asked,
    Path(image): Path<String>,
    JsonBody(order): JsonBody<ImageStage>,
) -> Answered<Vec<Staged>> {
    Ok(Json(admin.fleet.stage(bounded(image)?, order).await?))
}

pub(super) async fn wake(
    Asked(admin): Asked,
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
