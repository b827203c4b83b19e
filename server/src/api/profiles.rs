//! The admin's routes for profiles. Touches the fleet's handle.

use axum::Json;
use axum::extract::Path;

use super::admin::{Answered, JsonBody, bounded};
use super::caller::Asked;
use super::shapes::{ProfileAdd, ProfileAdded, ProfileShown};

pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<ProfileShown>> {
    Ok(Json(admin.fleet.profiles().await?))
}

pub(super) async fn add(Asked(admin): Asked, JsonBody(add): JsonBody<ProfileAdd>) -> Answered<ProfileAdded> {
    Ok(Json(admin.fleet.add_profile(add).await?))
}

pub(super) async fn show(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ProfileShown> {
    Ok(Json(admin.fleet.profile(bounded(name)?).await?))
}

pub(super) async fn remove(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ProfileShown> {
    Ok(Json(admin.fleet.remove_profile(bounded(name)?).await?))
}
