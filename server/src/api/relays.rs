//! The admin's routes for relays: invitations, the list, revocation; and what relays do for admins: staged images and
//! machines that are woken. Touches the fleet's handle, and the sockets of magic packets.

use axum::Json;

use super::admin::{Answered, JsonBody, Path, bounded};
use super::caller::Asked;
use super::shapes::{ImageStage, MachineChanged, MachineWake, RelayInvite, RelayInvited, RelayShown, Staged};
use crate::magic;

/// Lists the relays.
///
/// Also invitations, and relays that were revoked.
#[utoipa::path(get, path = "/relays", responses((status = 200, description = "All relays", body = Vec<RelayShown>)))]
pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<RelayShown>> {
    Ok(Json(admin.fleet.relays_shown().await?))
}

/// Invites a relay to a site.
///
/// The answer is the only place where the word is shown that enrols it.
#[utoipa::path(post, path = "/relays", request_body = RelayInvite, responses((status = 200, description = "The invitation, which holds a secret", body = RelayInvited)))]
pub(super) async fn invite(
    Asked(admin): Asked,
    JsonBody(invite): JsonBody<RelayInvite>,
) -> Answered<RelayInvited> {
    Ok(Json(admin.fleet.invite_relay(invite).await?))
}

/// Revokes a relay, or withdraws its invitation.
#[utoipa::path(delete, path = "/relays/{name}", params(("name" = String, Path, description = "The relay's name")), responses((status = 200, description = "The relay that is served no more", body = RelayShown)))]
pub(super) async fn revoke(Asked(admin): Asked, Path(name): Path<String>) -> Answered<RelayShown> {
    Ok(Json(admin.fleet.revoke_relay(bounded(name)?).await?))
}

/// Stages an image at a site, or ends that.
///
/// The site's relays fetch it before machines ask for it.
#[utoipa::path(post, path = "/images/{name}/stage", params(("name" = String, Path, description = "The image's name or id")), request_body = ImageStage, responses((status = 200, description = "Where the image is staged now", body = Vec<Staged>)))]
pub(super) async fn stage(
    Asked(admin): Asked,
    Path(image): Path<String>,
    JsonBody(order): JsonBody<ImageStage>,
) -> Answered<Vec<Staged>> {
    Ok(Json(admin.fleet.stage(bounded(image)?, order).await?))
}

/// Wakes machines with magic packets.
#[utoipa::path(post, path = "/machines/wake", request_body = MachineWake, responses((status = 200, description = "One line for each machine", body = Vec<MachineChanged>)))]
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
