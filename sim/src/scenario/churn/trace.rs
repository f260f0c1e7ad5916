//! Churn by the published statistics of a real network: points of the sessions' distribution and shares of classes.
//!
//! The format is that of the IPFS crawl beside the tree (`churn/ipfs_rfm2_churn.json`): `session_length_cdf_hours`, a list
//! of `[hours, share of sessions that are shorter]`, and `weekly_class_share_percent`. Sessions follow the Weibull
//! distribution through the first and the last point. `offline` peers are not part of the network and are left out.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;
use serde::Deserialize;

use super::draw::{Draw, times, unit};
use super::{Model, Session};

const HOUR: Duration = Duration::from_secs(3_600);

/// Statistics of a network's churn.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    shape: f64,
    scale: Duration,
    /// Shares of the classes, ascending to 1.
    classes: Vec<(f64, Class)>,
}

/// What a peer does within the time observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Comes and goes.
    Dangling,
    /// There all the time.
    Online,
    /// One session, then never again.
    Oneoff,
    /// Came once and stayed.
    Entered,
    /// Was there and left for good.
    Left,
}

/// What is wrong with a file of statistics; its author erred.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not JSON of the format.
    #[error("no statistics of churn: {0}")]
    Json(#[from] serde_json::Error),
    /// Fewer than two usable points.
    #[error(
        "session_length_cdf_hours needs two points with rising hours and rising shares between 0 and 1"
    )]
    Points,
    /// A class that is none.
    #[error("`{0}` is no class: offline, online, dangling, oneoff, entered or left")]
    Class(String),
    /// Nobody is ever there.
    #[error("no class but `offline` has a share")]
    Nobody,
    /// Time must pass.
    #[error("a speed of {0} is not above zero")]
    Speed(f64),
}

#[derive(Deserialize)]
struct File {
    session_length_cdf_hours: Vec<(f64, f64)>,
    weekly_class_share_percent: BTreeMap<String, f64>,
}

impl Trace {
    /// Reads statistics. `speed` is how many seconds of theirs pass in one of the simulation.
    pub fn parse(json: &str, speed: f64) -> Result<Trace, TraceError> {
        let file: File = serde_json::from_str(json)?;
        let points = &file.session_length_cdf_hours;
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err(TraceError::Points);
        };
        let usable = |(hours, share): &(f64, f64)| *hours > 0.0 && *share > 0.0 && *share < 1.0;
        if !usable(first) || !usable(last) || last.0 <= first.0 || last.1 <= first.1 {
            return Err(TraceError::Points);
        }
        if !(speed.is_finite() && speed > 0.0) {
            return Err(TraceError::Speed(speed));
        }
        let (shape, hours) = weibull_through(*first, *last);
        Ok(Trace {
            shape,
            scale: times(HOUR, hours / speed),
            classes: classes(&file.weekly_class_share_percent)?,
        })
    }

    /// The fitted distribution of sessions.
    pub fn sessions(&self) -> Model {
        Model::Weibull {
            shape: self.shape,
            scale: self.scale,
        }
    }

    pub(super) fn begin(
        &self,
        rng: &mut impl Rng,
        until: Duration,
    ) -> (Session, Option<(Duration, bool)>) {
        let mark = unit(rng);
        let class = self.classes.iter().find(|(upto, _)| mark < *upto);
        let session = Draw::Weibull {
            shape: self.shape,
            scale: self.scale,
        };
        match class.map_or(Class::Dangling, |(_, class)| *class) {
            Class::Dangling => {
                let first = session.sample(rng);
                (Session::Renewed(session), Some((first, false)))
            }
            Class::Online => (Session::Last, None),
            Class::Oneoff => (Session::Last, Some((session.sample(rng), false))),
            Class::Entered => {
                // Away from the start on; the change to `up` comes when it enters.
                (Session::Last, Some((times(until, unit(rng)), true)))
            }
            Class::Left => (Session::Last, Some((times(until, unit(rng)), false))),
        }
    }
}

/// The Weibull distribution through two points of its distribution function: shape, and scale in the points' unit.
fn weibull_through(first: (f64, f64), last: (f64, f64)) -> (f64, f64) {
    let depth = |share: f64| -libm::log(1.0 - share);
    let rise = libm::log(depth(last.1) / depth(first.1));
    let shape = rise / libm::log(last.0 / first.0);
    let scale = first.0 / libm::pow(depth(first.1), 1.0 / shape);
    (shape, scale)
}

fn classes(shares: &BTreeMap<String, f64>) -> Result<Vec<(f64, Class)>, TraceError> {
    let mut present = Vec::new();
    for (name, share) in shares {
        let class = match name.as_str() {
            "offline" => continue,
            "online" => Class::Online,
            "dangling" => Class::Dangling,
            "oneoff" => Class::Oneoff,
            "entered" => Class::Entered,
            "left" => Class::Left,
            _ => return Err(TraceError::Class(name.clone())),
        };
        present.push((share.max(0.0), class));
    }
    let total: f64 = present.iter().map(|(share, _)| share).sum();
    if total <= 0.0 {
        return Err(TraceError::Nobody);
    }
    let mut sum = 0.0;
    for (share, _) in &mut present {
        sum += *share / total;
        *share = sum;
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"session_length_cdf_hours": [[2.0, 0.5], [8.0, 0.8]],
        "weekly_class_share_percent": {"offline": 40.0, "dangling": 30.0, "online": 30.0}}"#;

    // Scenario: the two points of the published crawl give the parameters that stand in the file itself (0.6077 and
    // 3.656 hours); the speed shortens time, not its shape.
    #[test]
    fn the_fit_is_the_published_one() {
        let trace = Trace::parse(FILE, 1.0).expect("statistics");
        assert_eq!((trace.shape * 10_000.0).round(), 6_077.0);
        let hours = trace.scale.as_secs_f64() / 3_600.0;
        assert_eq!((hours * 1_000.0).round(), 3_656.0);
        let fast = Trace::parse(FILE, 3_600.0).expect("statistics");
        assert_eq!(fast.shape, trace.shape);
        assert_eq!((fast.scale.as_secs_f64() * 1_000.0).round(), 3_656.0);
        assert_eq!(
            trace.classes,
            [(0.5, Class::Dangling), (1.0, Class::Online)]
        );
    }

    // Scenario: each way in which the file can be wrong.
    #[test]
    fn broken_statistics_are_refused() {
        let error = |json: &str, speed| Trace::parse(json, speed).expect_err("refused");
        assert!(matches!(error("[]", 1.0), TraceError::Json(_)));
        assert!(matches!(error(FILE, 0.0), TraceError::Speed(_)));
        let points = FILE.replace("[8.0, 0.8]", "[8.0, 0.4]");
        assert!(matches!(error(&points, 1.0), TraceError::Points));
        let class = FILE.replace("online", "onlin");
        assert!(matches!(error(&class, 1.0), TraceError::Class(name) if name == "onlin"));
        let nobody = FILE.replace("30.0", "0.0");
        assert!(matches!(error(&nobody, 1.0), TraceError::Nobody));
    }
}
