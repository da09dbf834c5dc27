//! How what is counted is shown. Everything counts through the `metrics`
//! facade; only a `main` installs the recorder that remembers it.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// How often histograms are condensed: without it they grow between scrapes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// From half a millisecond, what a small call takes, to its longest deadline.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// Installs the recorder of this process.
///
/// # Errors
/// If there already is one.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_gauge!("mt_control_connected", "whether a stream to the control plane is up");
    describe_gauge!(
        "mt_config_age_seconds",
        Unit::Seconds,
        "how long ago the configuration in service was certainly the newest"
    );
    describe_gauge!("mt_config_generation", "the generation in service; 0 is none");
    describe_gauge!("mt_catalog_revision", "the catalog revision in service; 0 is none");
    describe_counter!("mt_discovery_responses_total", "responses of discovery that came");
    describe_counter!("mt_discovery_refused_total", "pushes that were refused");
    describe_counter!("mt_discovery_broken_total", "streams given up because a push did not add up");
    describe_counter!("mt_discovery_streams_ended_total", "streams of discovery that ended");
    describe_counter!(
        "mt_cache_write_failures_total",
        "copies of the configuration that could not be written"
    );
    describe_counter!("mt_lister_listings_total", "listings of backends, by outcome");
}
