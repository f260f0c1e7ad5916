//! Random durations by inversion. Only `libm` functions: the same draw on every machine.

use std::time::Duration;

use rand_core::Rng;

/// No session and no absence is shorter: a node does not blink.
const LEAST: Duration = Duration::from_millis(1);
/// A century: longer is for good, and still adds up without overflow.
const MOST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A distribution of durations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Draw {
    /// Of this mean.
    Exponential(Duration),
    /// See [`super::Model::Weibull`].
    Weibull { shape: f64, scale: Duration },
    /// See [`super::Model::Pareto`].
    Pareto { shape: f64, least: Duration },
}

impl Draw {
    /// The next duration of the stream.
    pub(super) fn sample(&self, rng: &mut impl Rng) -> Duration {
        let u = unit(rng);
        match self {
            Draw::Exponential(mean) => times(*mean, -libm::log(u)),
            Draw::Weibull { shape, scale } => times(*scale, libm::pow(-libm::log(u), 1.0 / shape)),
            Draw::Pareto { shape, least } => times(*least, libm::pow(u, -1.0 / shape)),
        }
    }
}

/// Uniform in the open interval from 0 to 1, in 2^53 steps.
pub(super) fn unit(rng: &mut impl Rng) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    ((rng.next_u64() >> 11) as f64 + 0.5) * STEP
}

/// A multiple of a duration, within what a node can live.
pub(super) fn times(duration: Duration, factor: f64) -> Duration {
    let seconds = duration.as_secs_f64() * factor;
    if seconds.is_finite() && seconds < MOST.as_secs_f64() {
        Duration::from_secs_f64(seconds.max(0.0)).max(LEAST)
    } else {
        MOST
    }
}
