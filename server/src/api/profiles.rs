//! The admin's routes for profiles. Touches the fleet's handle.

use axum::Json;

use super::admin::{Answered, JsonBody, Path, bounded};
use super::caller::Asked;
use super::shapes::{ProfileAdd, ProfileAdded, ProfileShown};

/// Lists the profiles.
#[utoipa::path(get, path = "/profiles", responses((status = 200, description = "All profiles, by their names", body = Vec<ProfileShown>)))]
pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<ProfileShown>> {
    Ok(Json(admin.fleet.profiles().await?))
}

/// Adds a profile.
///
/// With `dry_run` it is only checked.
#[utoipa::path(post, path = "/profiles", request_body = ProfileAdd, responses((status = 200, description = "The profile as it is stored", body = ProfileAdded)))]
pub(super) async fn add(Asked(admin): Asked, JsonBody(add): JsonBody<ProfileAdd>) -> Answered<ProfileAdded> {
    Ok(Json(admin.fleet.add_profile(add).await?))
}

/// Shows a profile.
#[utoipa::path(get, path = "/profiles/{name}", params(("name" = String, Path, description = "The profile's name")), responses((status = 200, description = "The profile", body = ProfileShown)))]
pub(super) async fn show(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ProfileShown> {
    Ok(Json(admin.fleet.profile(bounded(name)?).await?))
}

/// Removes a profile.
///
/// What was ordered by it stays as it was ordered.
#[utoipa::path(delete, path = "/profiles/{name}", params(("name" = String, Path, description = "The profile's name")), responses((status = 200, description = "The profile that is gone", body = ProfileShown)))]
pub(super) async fn remove(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ProfileShown> {
    Ok(Json(admin.fleet.remove_profile(bounded(name)?).await?))
}
