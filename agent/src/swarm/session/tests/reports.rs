//! How often it reports to the server, and what.

use super::*;

#[test]
fn it_reports_its_line_every_second() {
    let mut agent = Agent::started();
    let dials = agent.meets(vec![neighbour(4, &[FAR])], 50);
    agent.pulls(4, dials[0], Pulled::Holding(set([0, 1])), 60);
    agent.gets(4, dials[0], ChunkIndex(0), 80);
    let mut reports = vec![];
    for tick in 2..=40 {
        let load = Load { uploaded: tick * 100, sending: tick % 2 == 0, cpu: Duration::ZERO };
        let effects = agent.session.handle(Event::Tick(load), at(tick * 50));
        let speed = |word: &&ToServer| matches!(word, ToServer::Speed { .. });
        reports.extend(said(&effects).into_iter().find(speed).cloned());
    }
    let report = |sent, from_peers| ToServer::Speed {
        sent,
        sending_millis: 500,
        from_peers,
        from_server: 0,
        millis: 1000,
        bottleneck: Some(common::wire::swarm::Bottleneck::Net),
    };
    assert_eq!(reports, [report(2000, 10), report(2000, 0)]);
    assert_eq!(agent.session.sources().uploaded, 4000);
    assert_eq!((agent.session.sources().peers, agent.session.sources().peer_chunks), (10, 1));
}

/// Behind a thin line thirty agents' reports are a part of the traffic: the server says how often it wants them. Speed
/// is a sign of life too, so it comes every three seconds whatever the server says.
#[test]
fn it_reports_as_often_as_the_server_wants() {
    for (millis, told, seconds) in [(2000, 2, 2), (32_000, 32, 3), (1, 1, 1), (u32::MAX, 60, 3)] {
        let mut agent = Agent::started();
        let wanted = SwarmEvent::Pace(Duration::from_secs(told));
        let heard = agent.hears(ToAgent::Pace { millis }, 10);
        assert_eq!(heard.contains(&Effect::Tell(wanted)), told != 1, "{heard:?}");
        let reports = (1..=240).filter(|tick| {
            let effects = agent.session.handle(Event::Tick(Load::default()), at(tick * 50));
            said(&effects).iter().any(|word| matches!(word, ToServer::Speed { .. }))
        });
        assert_eq!(reports.count(), 12 / seconds, "{millis}");
    }
}
