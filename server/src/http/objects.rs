//! Small files by hash over HTTP, and what machines say of the neighbours that they tried before. Touches the boot
//! source and the peers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use axum::routing::get;
use common::id::Hash;
use common::wire::objects::{FAULT_QUERY, OBJECT, PEER_QUERY, PeerFault};

use super::content::answer;
use super::public::Public;
use super::query::query_pairs;
use super::refusal::Refusal;
use super::server::Ends;
use crate::boot::from_peers::TELL;
use crate::fleet::boot_policy::Sighting;

pub(super) fn routes() -> Router<Arc<Public>> {
    Router::new().route(&format!("{OBJECT}/{{hash}}"), get(object)).route(TELL, get(tell))
}

async fn object(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Path(hash): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    take_faults(&public, ends, query.as_deref());
    let hash: Hash = hash.parse().map_err(|_| Refusal::absent("that is no file's hash"))?;
    let content = public.ask(move |source| source.object(hash)).await?;
    let content = content.ok_or_else(|| Refusal::absent("there is no such file"))?;
    let peers = public.peers.clone();
    answer(&method, &headers, content, Box::new(move |_| peers.sign(ends.peer.ip()))).await
}

/// An empty file: for a script that has nothing to fetch here, but something to say or to find out.
async fn tell(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
) -> &'static str {
    take_faults(&public, ends, query.as_deref());
    ""
}

/// Takes the faults of neighbours in a query. Anybody may say anything here: see `peers` for how little it does.
pub(super) fn take_faults(public: &Public, ends: Ends, query: Option<&str>) {
    for (peer, fault) in faults(query.unwrap_or_default()) {
        let address = ends.peer.ip();
        if let Some(why) = public.peers.complain(address, peer, fault) {
            public.fleet.sighting(Sighting::NeighbourFailed { address, why });
        }
    }
}

/// The pairs of neighbour and fault in `query`, in their order; what is malformed is dropped.
fn faults(query: &str) -> Vec<(SocketAddr, PeerFault)> {
    let (mut peer, mut faults) = (None, vec![]);
    for (name, value) in query_pairs(query) {
        match (name.as_str(), value) {
            (PEER_QUERY, value) => peer = value.and_then(|text| text.parse::<SocketAddr>().ok()),
            (FAULT_QUERY, Some(word)) => {
                faults.extend(peer.take().zip(PeerFault::of_word(&word)));
            }
            _ => {}
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_with_suspicion() {
        let peer = |n| SocketAddr::from(([10, 0, 0, n], 8069));
        let query = "&peer=10.0.0.8:8069&fault=slow&peer=10.0.0.9:8069&fault=wrong";
        assert_eq!(faults(query), [(peer(8), PeerFault::Slow), (peer(9), PeerFault::Wrong)]);
        for none in
            ["", "fault=slow", "peer=10.0.0.8&fault=slow", "peer=10.0.0.8:8069", "peer=x:1&fault=slow"]
        {
            assert_eq!(faults(none), [], "{none}");
        }
        assert_eq!(faults("peer=10.0.0.8:8069&fault=late&fault=slow"), []);
    }
}
