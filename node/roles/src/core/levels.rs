//! When what is left of something is low, or too little to go on, without flapping at the line.
//!
//! ```text
//!   left ──┬───────────────┬────────────────┬─────────────▶
//!          0           critical            low
//!   Critical below `critical`, Low below `low`; back only an eighth above the line that was crossed
//! ```

/// How much is left, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    #[default]
    Fine,
    /// Less than is prudent.
    Low,
    /// Too little: what needs more of it is refused.
    Critical,
}

/// The lines, in the unit of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Low below this.
    pub low: u64,
    /// Critical below this; never above `low`.
    pub critical: u64,
}

impl Lines {
    /// Lines in order: a critical one above the low one is the low one.
    pub fn new(low: u64, critical: u64) -> Lines {
        let critical = critical.min(low);
        Lines { low, critical }
    }
}

/// How far above a line what is left must be before the line counts as left behind: an eighth of it.
const SLACK: u64 = 8;

/// The level of one thing over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    level: Level,
}

impl Gauge {
    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// So much is left. Returns the level before, if it is another one now.
    pub fn measure(&mut self, lines: Lines, left: u64) -> Option<Level> {
        // A line that holds already lets go only beyond its slack.
        let below = |line: u64, holds: bool| {
            let line = match holds {
                true => line.saturating_add(line / SLACK),
                false => line,
            };
            left < line
        };
        let level = if below(lines.critical, self.level == Level::Critical) {
            Level::Critical
        } else if below(lines.low, self.level >= Level::Low) {
            Level::Low
        } else {
            Level::Fine
        };
        let before = std::mem::replace(&mut self.level, level);
        (before != level).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Lines = Lines {
        low: 800,
        critical: 80,
    };

    fn levels(measured: &[u64]) -> Vec<Level> {
        let mut gauge = Gauge::default();
        let levels = measured.iter().map(|left| {
            gauge.measure(LINES, *left);
            gauge.level()
        });
        levels.collect()
    }

    /// Scenario: what is left runs out and comes back; each line holds until it is left behind by an eighth.
    #[test]
    fn out_and_back() {
        use Level::{Critical, Fine, Low};
        let measured = [800, 799, 899, 80, 79, 89, 90, 80, 899, 900, 0, 899, 900];
        let wanted = [
            Fine, Low, Low, Low, Critical, Critical, Low, Low, Low, Fine, Critical, Low, Fine,
        ];
        assert_eq!(levels(&measured), wanted);
    }

    /// Scenario: what is left swings around a line by less than the slack: one change, not one a swing.
    #[test]
    fn no_flapping() {
        let mut gauge = Gauge::default();
        let changes = (0..100).filter_map(|n| gauge.measure(LINES, 780 + 40 * (n % 2)));
        assert_eq!(changes.collect::<Vec<_>>(), [Level::Fine]);
        assert_eq!(gauge.level(), Level::Low);
    }

    /// Scenario: lines are moved while a level holds: the next measure is judged by the new ones. Lines of zero never hold,
    /// and a critical line above the low one is no more than that.
    #[test]
    fn lines_may_move() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.measure(LINES, 10), Some(Level::Fine));
        assert_eq!(gauge.measure(Lines::new(10, 5), 20), Some(Level::Critical));
        assert_eq!(gauge.level(), Level::Fine);
        assert_eq!(gauge.measure(Lines::new(0, 0), 0), None);
        assert_eq!(
            Lines::new(5, 9),
            Lines {
                low: 5,
                critical: 5
            }
        );
        assert_eq!(
            gauge.measure(Lines::new(u64::MAX, u64::MAX), 7),
            Some(Level::Fine)
        );
        assert_eq!(gauge.level(), Level::Critical);
    }
}
