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
