//! Owns the result of a run, and how it is shown: a table in Markdown, with ratios. Touches nothing.

use anyhow::{Context as _, Result};

use crate::scenario::{Peer, Scenario};

/// The largest factor by which counts may be above their bars when a run has slack.
const COUNTS_SLACK: f64 = 1.10;

/// The measurements of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// Seconds from the first machine's start to the last one's end.
    pub(crate) seconds: f64,
    /// Seconds that the machine took which began last.
    pub(crate) last_own: f64,
    /// Payload bytes that left the server; 0 where the program does not say.
    pub(crate) from_server: u64,
    /// Bytes of one copy of the image as sent, where copies are counted in those; `None` where in raw bytes.
    pub(crate) copy_bytes: Option<u64>,
    /// Bytes that the interfaces counted: out of the server, and into each site.
    pub(crate) server_bytes: u64,
    pub(crate) site_bytes: Vec<u64>,
    /// Processor seconds of the server and of all agents; 0 where they were not measured.
    pub(crate) cpu_seconds: f64,
    /// The most memory that any agent held, in bytes.
    pub(crate) peak_bytes: u64,
}

/// A row of the table: the scenario, the program and its result.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) who: String,
    pub(crate) measured: Measured,
}

#[allow(clippy::cast_precision_loss)] // Ratios for people; all are far below 2^52 bytes.
fn over(bytes: u64, whole: u64) -> f64 {
    bytes as f64 / whole as f64
}

impl Row {
    /// Time over the lower bound; none where no line limits.
    pub(crate) fn time_ratio(&self) -> Option<f64> {
        let bytes = over(self.scenario.bytes(), 1);
        self.scenario.bound(bytes).map(|bound| self.measured.seconds / bound)
    }

    /// The time of the last machine over the least that its own line allows.
    fn last_ratio(&self) -> Option<f64> {
        let rate = self.scenario.down? * 1e6 / 8.0 * crate::scenario::PAYLOAD;
        Some(self.measured.last_own * rate / over(self.scenario.bytes(), 1))
    }

    fn copy_bytes(&self) -> u64 {
        self.measured.copy_bytes.unwrap_or(self.scenario.bytes())
    }

    /// How many copies of the image left the server, as payload.
    pub(crate) fn egress(&self) -> f64 {
        over(self.measured.from_server, self.copy_bytes())
    }

    /// How many copies of the image went into each site by the interface's count, which includes headers and messages.
    /// Nothing is subtracted for those: large packets are counted before they are segmented, with one header for many.
    pub(crate) fn wan(&self) -> Vec<f64> {
        let copy = self.copy_bytes();
        self.measured.site_bytes.iter().map(|bytes| over(*bytes, copy)).collect()
    }

    fn cpu_per_gib(&self) -> Option<f64> {
        let delivered = over(self.scenario.bytes() * self.scenario.machines as u64, 1 << 30);
        let cpu = self.measured.cpu_seconds / delivered;
        (cpu > 0.0).then_some(cpu)
    }

    fn peak_mib(&self) -> Option<f64> {
        (self.measured.peak_bytes > 0).then_some(over(self.measured.peak_bytes, 1 << 20))
    }

    /// The bars that it misses, as text; counts may be a tenth above theirs when times have `slack`.
    pub(crate) fn misses(&self, slack: f64) -> Vec<String> {
        let bars = self.scenario.bars;
        let mut misses = vec![];
        let mut check = |what: &str, value: Option<f64>, bar: Option<f64>, slack: f64| {
            if let (Some(value), Some(bar)) = (value, bar)
                && value > bar * slack
            {
                misses.push(format!("{what} {value:.3} > {:.3}", bar * slack));
            }
        };
        // Counts do not depend on how busy the computer is.
        let counts = slack.min(COUNTS_SLACK);
        check("time", self.time_ratio(), bars.time, slack);
        check("the last machine's own time", self.last_ratio(), bars.last, slack);
        check("egress", Some(self.egress()), bars.egress, counts);
        check("CPU", self.cpu_per_gib(), bars.cpu, slack);
        check("memory", self.peak_mib(), bars.memory, counts);
        for copies in self.wan() {
            check("into a site", Some(copies), bars.wan, counts);
        }
        misses
    }

    /// The bar that it misses beside `peer`, which took `seconds` for the same; none if it does not.
    pub(crate) fn beaten_by(&self, peer: Peer, seconds: f64) -> Option<String> {
        let (rival, bar) = self.scenario.bars.rival.filter(|(rival, _)| *rival == peer)?;
        let ratio = self.measured.seconds / seconds;
        (ratio > bar).then(|| format!("{ratio:.2} times as long as {}; the bar is {bar:.2}", rival.name()))
    }

    fn cells(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let wire = over(self.measured.server_bytes, self.copy_bytes());
        let wan: Vec<String> = self.wan().iter().map(|copies| format!("{copies:.3}")).collect();
        vec![
            self.scenario.name.to_owned(),
            self.who.clone(),
            format!("{:.1}", self.measured.seconds),
            number(self.time_ratio()),
            if self.measured.from_server > 0 { format!("{:.3}", self.egress()) } else { "–".to_owned() },
            format!("{wire:.3}"),
            if wan.is_empty() { "–".to_owned() } else { wan.join(", ") },
            number(self.cpu_per_gib()),
            self.peak_mib().map_or_else(|| "–".to_owned(), |mib| format!("{mib:.0}")),
            self.misses(1.0).join("; "),
        ]
    }
}

/// The table's head.
pub(crate) const HEAD: &str = "| scenario | who | seconds | T/B | server egress | server's interface | into each site | CPU-s/GiB | agent MiB | misses |\n\
     | --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- |";

/// A row of the table.
pub(crate) fn line(row: &Row) -> String {
    format!("| {} |", row.cells().join(" | "))
}

/// Seconds of the day that a time such as `2026-11-22T10:00:00.123Z` names; runs across midnight are not measured.
pub(crate) fn seconds(time: &str) -> Result<f64> {
    let clock = time.split('T').nth(1).and_then(|clock| clock.strip_suffix('Z'));
    let parts: Option<Vec<f64>> =
        clock.and_then(|clock| clock.split(':').map(|part| part.parse().ok()).collect());
    match parts.as_deref() {
        Some([hours, minutes, seconds]) => Ok(hours * 3600.0 + minutes * 60.0 + seconds),
        _ => None.with_context(|| format!("not a time: {time}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::all;

    #[test]
    fn a_bar_that_is_missed_is_named() {
        let scenario = all().remove(0);
        let bound = scenario.bound(268_435_456.0).unwrap();
        let measured = Measured { seconds: bound * 1.2, from_server: 268_435_456, ..Measured::default() };
        let row = Row { scenario, who: "ours".to_owned(), measured };
        assert_eq!(row.misses(1.0), ["time 1.200 > 1.050"]);
        assert!(row.misses(1.2).is_empty());
        assert!(line(&row).contains("1.20"));
    }

    #[test]
    fn times_are_read() {
        let apart = seconds("2026-11-22T10:01:00.5Z").unwrap() - seconds("2026-11-22T10:00:59.25Z").unwrap();
        assert!((apart - 1.25).abs() < 1e-6);
        assert!(seconds("yesterday").is_err());
    }
}
