//! Core: whether the rules of nftables let a packet to a port of this host in, as far as they can be understood: the JSON
//! of `nft -j list ruleset`. Rules of iptables are there too, where its newer form is in use. Touches nothing.

use serde_json::Value;

/// How deep chains may call each other, as in the kernel.
const DEPTH: u32 = 16;

/// Whether a packet comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// It does.
    Yes,
    /// It is dropped or refused.
    No,
    /// That depends on something which is not understood here.
    Unknown,
}

/// The first packet of a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) interface: &'a str,
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    In,
    Out,
    /// The chain says nothing.
    Through,
    Unknown,
}

/// Whether the `ruleset` lets the packet in. Without rules everything comes in.
pub(super) fn passes(ruleset: &Value, packet: Packet<'_>) -> Passes {
    let all: Vec<&Value> = ruleset["nftables"].as_array().into_iter().flatten().collect();
    let is_ours = |chain: &&Value| {
        chain["hook"] == "input" && ["ip", "inet"].iter().any(|family| chain["family"] == *family)
    };
    let mut passes = Passes::Yes;
    for chain in all.iter().map(|entry| &entry["chain"]).filter(is_ours) {
        let fate = match walk(&all, chain, packet, 0) {
            Fate::Through if chain["policy"] == "drop" => Fate::Out,
            fate => fate,
        };
        match fate {
            Fate::Out => return Passes::No,
            Fate::Unknown => passes = Passes::Unknown,
            Fate::In | Fate::Through => {}
        }
    }
    passes
}

fn walk(all: &[&Value], chain: &Value, packet: Packet<'_>, depth: u32) -> Fate {
    if depth > DEPTH {
        return Fate::Unknown;
    }
    let (table, name) = (&chain["table"], &chain["name"]);
    let own = |rule: &&Value| {
        rule["family"] == chain["family"] && rule["table"] == *table && rule["chain"] == *name
    };
    // What may have happened in rules of which it is unknown whether they match.
    let mut may: Vec<Fate> = vec![];
    let after =
        |may: &[Fate], fate: Fate| if may.iter().all(|other| *other == fate) { fate } else { Fate::Unknown };
    for rule in all.iter().map(|entry| &entry["rule"]).filter(own) {
        let said: Vec<&Value> = rule["expr"].as_array().into_iter().flatten().collect();
        let matched = said.iter().filter_map(|one| matches(one, packet)).collect::<Vec<_>>();
        if matched.contains(&Some(false)) {
            continue;
        }
        let fate = said.iter().find_map(|one| verdict(all, chain, one, packet, depth));
        let Some(fate) = fate.filter(|fate| *fate != Fate::Through) else {
            // A `return` ends the chain; what calls another that says nothing goes on.
            if said.iter().any(|one| one.get("return").is_some()) {
                if matched.contains(&None) {
                    may.push(Fate::Through);
                    continue;
                }
                return after(&may, Fate::Through);
            }
            continue;
        };
        if matched.contains(&None) {
            may.push(fate);
        } else {
            return after(&may, fate);
        }
    }
    // The policy of a chain that is called first decides in the end.
    let end = if depth == 0 && chain["policy"] == "drop" { Fate::Out } else { Fate::Through };
    let end = if depth == 0 && end == Fate::Through { Fate::In } else { end };
    after(&may, end)
}

/// What a part of a rule does; `None` if it only matches, counts or logs.
fn verdict(all: &[&Value], chain: &Value, said: &Value, packet: Packet<'_>, depth: u32) -> Option<Fate> {
    let (kind, body) = said.as_object()?.iter().next()?;
    match kind.as_str() {
        "accept" => Some(Fate::In),
        "drop" | "reject" => Some(Fate::Out),
        "queue" | "vmap" => Some(Fate::Unknown),
        "jump" | "goto" => {
            let is_it = |other: &&Value| {
                other["family"] == chain["family"]
                    && other["table"] == chain["table"]
                    && other["name"] == body["target"]
            };
            let target = all.iter().map(|entry| &entry["chain"]).find(is_it);
            Some(target.map_or(Fate::Unknown, |target| walk(all, target, packet, depth + 1)))
        }
        _ => None,
    }
}

/// Whether a part of a rule matches; `None` if it is no condition, `Some(None)` if that is not understood.
fn matches(said: &Value, packet: Packet<'_>) -> Option<Option<bool>> {
    let (kind, body) = said.as_object()?.iter().next()?;
    match kind.as_str() {
        "match" => Some(condition(body, packet)),
        "limit" | "xt" | "quota" | "fib" => Some(None),
        _ => None,
    }
}

fn condition(body: &Value, packet: Packet<'_>) -> Option<bool> {
    let (left, right) = (&body["left"], &body["right"]);
    let payload = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str());
    let is = match payload {
        (Some(protocol @ ("udp" | "tcp")), Some(field)) => {
            if protocol != packet.protocol {
                return Some(false);
            }
            if field == "dport" { among(right, &packet.port.into())? } else { return None }
        }
        (Some("th"), Some("dport")) => among(right, &packet.port.into())?,
        (Some("ip"), Some("protocol")) => among(right, &packet.protocol.into())?,
        (Some("icmp" | "icmpv6" | "ip6"), _) => return Some(false),
        (Some(_), _) => return None,
        _ if left["meta"]["key"] == "l4proto" => among(right, &packet.protocol.into())?,
        _ if left["meta"]["key"] == "iifname" || left["meta"]["key"] == "iif" => {
            among(right, &packet.interface.into())?
        }
        _ if left["ct"]["key"] == "state" => among(right, &"new".into())?,
        _ => return None,
    };
    Some(is != (body["op"] == "!="))
}

/// Whether `value` is `right`, or in it: a set, a range, or a name with a star.
fn among(right: &Value, value: &Value) -> Option<bool> {
    if let Some(list) = right.as_array().or_else(|| right["set"].as_array()) {
        let each: Vec<Option<bool>> = list.iter().map(|one| among(one, value)).collect();
        return if each.contains(&Some(true)) {
            Some(true)
        } else if each.contains(&None) {
            None
        } else {
            Some(false)
        };
    }
    if let Some([first, last]) = right["range"].as_array().map(Vec::as_slice) {
        let (first, last, value) = (first.as_u64()?, last.as_u64()?, value.as_u64()?);
        return Some((first..=last).contains(&value));
    }
    match (right.as_str(), value.as_str()) {
        // A set that has a name stands elsewhere.
        (Some(name), _) if name.starts_with('@') => None,
        (Some(pattern), Some(name)) if pattern.ends_with('*') => {
            Some(name.starts_with(pattern.trim_end_matches('*')))
        }
        _ if right.is_object() => None,
        _ => Some(right == value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let mut all = vec![
            json!({"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": policy}}),
            json!({"chain": {"family": "inet", "table": "filter", "name": "other"}}),
        ];
        for rule in rules {
            all.push(json!({"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": rule}}));
        }
        all.push(json!({"rule": {"family": "inet", "table": "filter", "chain": "other", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 69}}, {"accept": null}
        ]}}));
        json!({"nftables": all})
    }

    fn port(protocol: &str, right: Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}})
    }

    #[test]
    fn a_packet_goes_the_way_that_the_rules_say() {
        let accept = json!({"accept": null});
        let drop = json!({"drop": null});
        let new = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
        let iif =
            |name: &str| json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}});
        let odd = json!({"xt": {"type": "match", "name": "recent"}});
        let jump = json!({"jump": {"target": "other"}});
        let table = [
            (json!({"nftables": []}), Passes::Yes),
            (ruleset("accept", &[]), Passes::Yes),
            (ruleset("drop", &[]), Passes::No),
            (ruleset("drop", &[json!([port("udp", 69.into()), accept])]), Passes::Yes),
            (ruleset("drop", &[json!([port("tcp", 69.into()), accept])]), Passes::No),
            (
                ruleset("drop", &[json!([port("udp", json!({"set": [67, {"range": [60, 70]}]})), accept])]),
                Passes::Yes,
            ),
            (ruleset("drop", &[json!([port("udp", "@open".into()), accept])]), Passes::Unknown),
            (ruleset("drop", &[json!([new, accept])]), Passes::No),
            (ruleset("drop", &[json!([iif("eth*"), {"counter": {}}, accept])]), Passes::Yes),
            (ruleset("drop", &[json!([iif("lo"), accept])]), Passes::No),
            (ruleset("drop", &[json!([odd, accept])]), Passes::Unknown),
            (ruleset("accept", &[json!([odd, accept])]), Passes::Yes),
            (ruleset("accept", &[json!([odd, drop])]), Passes::Unknown),
            (ruleset("accept", &[json!([port("udp", 69.into()), {"reject": null}])]), Passes::No),
            (ruleset("drop", &[json!([jump])]), Passes::Yes),
            (ruleset("drop", &[json!([{"jump": {"target": "nowhere"}}])]), Passes::Unknown),
            (ruleset("drop", &[json!([{"return": null}]), json!([accept])]), Passes::No),
            (ruleset("drop", &[json!([{"jump": {"target": "input"}}])]), Passes::Unknown),
        ];
        for (rules, wanted) in table {
            let packet = Packet { protocol: "udp", port: 69, interface: "eth1" };
            assert_eq!(passes(&rules, packet), wanted, "{rules}");
        }
        assert_eq!(passes(&json!(7), Packet { protocol: "udp", port: 69, interface: "eth1" }), Passes::Yes);
    }
}
