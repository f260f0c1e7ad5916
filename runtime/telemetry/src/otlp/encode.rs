//! The same samples that `/metrics` shows, as OTLP's metrics: one reading, two texts.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as Number,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pqcnet_actor::BUCKETS;

use crate::metrics::{MAX_SAMPLES, PREFIX, Sample, Value};

/// When a reading was taken, and since when its totals count; nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) now: u64,
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Any::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// One export of all samples.
pub(super) fn request(
    resource: Vec<KeyValue>,
    mut samples: Vec<Sample>,
    at: Span,
) -> ExportMetricsServiceRequest {
    samples.truncate(MAX_SAMPLES);
    samples.sort_by_key(|sample| sample.name);
    let metrics = samples
        .chunk_by(|left, right| left.name == right.name)
        .filter_map(|group| metric(group, at))
        .collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: PREFIX.to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn metric(group: &[Sample], at: Span) -> Option<Metric> {
    let first = group.first()?;
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || {
        group
            .iter()
            .filter_map(|sample| number(sample, at))
            .collect()
    };
    let data = match &first.value {
        Value::Counter(_) | Value::CounterOf(_) => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Value::Gauge(_) | Value::GaugeOf(_) => Data::Gauge(Gauge {
            data_points: numbers(),
        }),
        Value::Histogram(_) => Data::Histogram(Histogram {
            data_points: group.iter().filter_map(|s| distribution(s, at)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Some(Metric {
        name: format!("{PREFIX}_{}", first.name),
        description: first.help.to_owned(),
        unit: unit(first.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// In UCUM's letters.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some(_) | None => "1",
    }
}

fn labels(sample: &Sample) -> Vec<KeyValue> {
    let labels = sample.labels.iter();
    labels.map(|(name, value)| text(name, value)).collect()
}

fn number(sample: &Sample, at: Span) -> Option<NumberDataPoint> {
    let whole = |n: &u64| Number::AsInt(i64::try_from(*n).unwrap_or(i64::MAX));
    let value = match &sample.value {
        Value::Counter(n) | Value::Gauge(n) => whole(n),
        Value::CounterOf(n) | Value::GaugeOf(n) => Number::AsDouble(*n),
        Value::Histogram(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: labels(sample),
        start_time_unix_nano: at.start,
        time_unix_nano: at.now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn distribution(sample: &Sample, at: Span) -> Option<HistogramDataPoint> {
    let Value::Histogram(observed) = &sample.value else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: labels(sample),
        start_time_unix_nano: at.start,
        time_unix_nano: at.now,
        count: observed.count(),
        sum: Some(observed.sum.as_secs_f64()),
        bucket_counts: observed.counts.to_vec(),
        explicit_bounds: BUCKETS.to_vec(),
        ..HistogramDataPoint::default()
    })
}

#[cfg(test)]
mod tests {
    // Scenario: samples of every kind become metrics of OTLP's kinds, with units, labels and times.
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_kind_has_its_place() {
        let histogram = pqcnet_actor::Histogram::default();
        histogram.observe(Duration::from_millis(2));
        let samples = vec![
            Sample::gauge("shard_bytes", "Bytes", 7).label("shard", "3"),
            Sample::counter("frames", "Frames", u64::MAX),
            Sample::new("busy_seconds", "Busy", Value::CounterOf(1.5)),
            Sample::new("load", "Load", Value::GaugeOf(0.25)),
            Sample::new(
                "ack_seconds",
                "Acks",
                Value::Histogram(histogram.observed()),
            ),
        ];
        let at = Span { start: 1, now: 2 };
        let request = request(vec![text("service.name", "x")], samples, at);
        let resource = &request.resource_metrics[0];
        assert_eq!(
            resource.resource.as_ref().map(|r| r.attributes.clone()),
            Some(vec![text("service.name", "x")])
        );
        let metrics = &resource.scope_metrics[0].metrics;
        let named: Vec<(&str, &str)> = metrics
            .iter()
            .map(|m| (m.name.as_str(), m.unit.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                ("pqcnet_ack_seconds", "s"),
                ("pqcnet_busy_seconds", "s"),
                ("pqcnet_frames", "1"),
                ("pqcnet_load", "1"),
                ("pqcnet_shard_bytes", "By"),
            ]
        );
        let Some(Data::Histogram(acks)) = &metrics[0].data else {
            panic!("{metrics:?}")
        };
        let point = &acks.data_points[0];
        assert_eq!((point.count, point.sum), (1, Some(0.002)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts[4], 1);
        let Some(Data::Sum(frames)) = &metrics[2].data else {
            panic!("{metrics:?}")
        };
        assert!(frames.is_monotonic);
        let point = &frames.data_points[0];
        assert_eq!(point.value, Some(Number::AsInt(i64::MAX)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        let Some(Data::Gauge(bytes)) = &metrics[4].data else {
            panic!("{metrics:?}")
        };
        assert_eq!(bytes.data_points[0].attributes, [text("shard", "3")]);
    }
}
