//! Metrics as text in two formats: OpenMetrics for scrapes over HTTP, and Prometheus' older text format for
//! node_exporter's textfile collector, which cannot parse OpenMetrics.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Encodes all metrics in the OpenMetrics format.
pub(crate) fn openmetrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail. If it did, Prometheus would refuse the incomplete page.
    if let Err(error) = encode(&mut text, registry) {
        tracing::error!(%error, "cannot write the metrics");
    }
    text
}

/// Encodes all metrics in Prometheus' older text format: a type that the format lacks becomes the nearest one it has,
/// and a counter has the name of its samples.
pub(crate) fn plain(registry: &Registry) -> String {
    let mut plain = String::new();
    let mut help = None;
    for line in openmetrics(registry).lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), text) => help = text.map(str::to_owned),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some(help) = help.take() {
                    plain.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                }
                plain.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            // The unit, which the name contains too, and the end marker.
            (Some("#"), ..) => {}
            _ => plain.push_str(&format!("{line}\n")),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    #[test]
    fn the_plain_form_has_only_what_the_textfile_collector_knows() {
        let mut registry = Registry::with_prefix("p");
        registry.register("build", "The version", Info::new([("version", "1 \"x\"")]));
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("runs", "Runs that ended", counter);
        registry.register("waiting", "What waits", Gauge::<i64>::default());
        registry.register_with_unit("took", "How long", Unit::Seconds, Histogram::new([1.0]));
        insta::assert_snapshot!(plain(&registry), @r#"
        # HELP p_build_info The version.
        # TYPE p_build_info gauge
        p_build_info{version="1 \"x\""} 1
        # HELP p_runs_total Runs that ended.
        # TYPE p_runs_total counter
        p_runs_total 1
        # HELP p_waiting What waits.
        # TYPE p_waiting gauge
        p_waiting 0
        # HELP p_took_seconds How long.
        # TYPE p_took_seconds histogram
        p_took_seconds_sum 0.0
        p_took_seconds_count 0
        p_took_seconds_bucket{le="1.0"} 0
        p_took_seconds_bucket{le="+Inf"} 0
        "#);
    }
}
