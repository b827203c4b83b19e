//! The admin's routes for tokens, and `whoami`. Touches the fleet's handle.

use std::sync::Arc;

use axum::extract::Path;
use axum::{Extension, Json};

use super::admin::{Answered, JsonBody, bounded};
use super::caller::Asked;
use super::shapes::{Caller, TokenMade, TokenOrder, TokenShown, WhoAmI};

pub(super) async fn whoami(Extension(caller): Extension<Arc<Caller>>) -> Json<WhoAmI> {
    let Caller { who, role, scope, expires } = (*caller).clone();
    Json(WhoAmI { who, role, scope, expires })
}

pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<TokenShown>> {
    let mut tokens = admin.fleet.tokens_shown().await?;
    for token in tokens.iter_mut().filter(|token| token.revoked.is_none()) {
        token.used = admin.used.of(&token.name);
    }
    Ok(Json(tokens))
}

pub(super) async fn make(Asked(admin): Asked, JsonBody(order): JsonBody<TokenOrder>) -> Answered<TokenMade> {
    Ok(Json(admin.fleet.make_token(order).await?))
}

pub(super) async fn revoke(Asked(admin): Asked, Path(name): Path<String>) -> Answered<TokenShown> {
    let token = admin.fleet.revoke_token(bounded(name)?).await?;
    admin.used.forget(&token.name);
    Ok(Json(token))
}
