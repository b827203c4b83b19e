//! Values that are read at a scrape and not counted by this room: gauges of the fleet, and counters that others keep.
//! Touches the library only.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One value of a metric, with its labels.
type Sample = (Vec<(&'static str, String)>, f64);

/// One metric as it was read.
#[derive(Debug)]
pub struct Reading {
    name: &'static str,
    about: &'static str,
    counts: bool,
    samples: Vec<Sample>,
}

impl Reading {
    /// A gauge, which may rise and fall.
    #[must_use]
    pub fn gauge(name: &'static str, about: &'static str) -> Self {
        Self { name, about, counts: false, samples: vec![] }
    }

    /// A counter, which only rises; `_total` is added to its name.
    #[must_use]
    pub fn counter(name: &'static str, about: &'static str) -> Self {
        Self { counts: true, ..Self::gauge(name, about) }
    }

    /// Adds the value of the series that has no labels.
    #[must_use]
    pub fn is(mut self, value: f64) -> Self {
        self.samples.push((vec![], value));
        self
    }

    /// Adds the value of one series.
    #[must_use]
    pub fn with(mut self, labels: Vec<(&'static str, String)>, value: f64) -> Self {
        self.samples.push((labels, value));
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = if self.counts { MetricType::Counter } else { MetricType::Gauge };
        let mut family = encoder.encode_descriptor(self.name, self.about, None, kind)?;
        for (labels, value) in &self.samples {
            let sample = if labels.is_empty() { None } else { Some(family.encode_family(labels)?) };
            match (sample, self.counts) {
                (Some(sample), true) => ConstCounter::new(*value).encode(sample)?,
                (Some(sample), false) => ConstGauge::new(*value).encode(sample)?,
                // A metric without labels has one sample.
                (None, true) => return ConstCounter::new(*value).encode(family),
                (None, false) => return ConstGauge::new(*value).encode(family),
            }
        }
        Ok(())
    }
}

/// All that was read for one scrape.
#[derive(Debug)]
pub(super) struct Readings(pub(super) Vec<Reading>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|reading| reading.encode(&mut encoder))
    }
}
