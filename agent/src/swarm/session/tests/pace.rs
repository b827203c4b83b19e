//! How often a session reports. Owns no state.

use super::*;

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
