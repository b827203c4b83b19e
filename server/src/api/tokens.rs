//! The admin's routes for tokens, and `whoami`. Touches the fleet's handle.

use std::sync::Arc;

use axum::{Extension, Json};

use super::admin::{Answered, JsonBody, Path, bounded};
use super::caller::Asked;
use super::shapes::{Caller, TokenMade, TokenOrder, TokenShown, WhoAmI};

/// Who you are.
///
/// As the server knows it from the token, or from the user of its host.
#[utoipa::path(get, path = "/whoami", responses((status = 200, description = "Who you are, and what you may do", body = WhoAmI)))]
pub(super) async fn whoami(Extension(caller): Extension<Arc<Caller>>) -> Json<WhoAmI> {
    let Caller { who, role, scope, expires } = (*caller).clone();
    Json(WhoAmI { who, role, scope, expires })
}

/// Lists the tokens.
///
/// Also those that were revoked or have expired, without what they are made of.
#[utoipa::path(get, path = "/tokens", responses((status = 200, description = "All tokens", body = Vec<TokenShown>)))]
pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<TokenShown>> {
    let mut tokens = admin.fleet.tokens_shown().await?;
    for token in tokens.iter_mut().filter(|token| token.revoked.is_none()) {
        token.used = admin.used.of(&token.name);
    }
    Ok(Json(tokens))
}

/// Makes a token.
///
/// The answer is the only place where it is shown.
#[utoipa::path(post, path = "/tokens", request_body = TokenOrder, responses((status = 200, description = "The token, which is a secret", body = TokenMade)))]
pub(super) async fn make(Asked(admin): Asked, JsonBody(order): JsonBody<TokenOrder>) -> Answered<TokenMade> {
    Ok(Json(admin.fleet.make_token(order).await?))
}

/// Revokes a token.
///
/// Whatever is being sent to whoever showed it ends, too.
#[utoipa::path(delete, path = "/tokens/{name}", params(("name" = String, Path, description = "The token's name")), responses((status = 200, description = "The token that lets nobody in any more", body = TokenShown)))]
pub(super) async fn revoke(Asked(admin): Asked, Path(name): Path<String>) -> Answered<TokenShown> {
    let token = admin.fleet.revoke_token(bounded(name)?).await?;
    admin.used.forget(&token.name);
    Ok(Json(token))
}
