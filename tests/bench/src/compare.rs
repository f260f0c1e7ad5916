//! What two things cost beside each other, when the machine's own ups and downs are larger than the difference: many short rounds in turn,
//! a ratio each, and how sure the middle of these is.

/// Samples drawn with replacement, to see how far the middle could lie elsewhere.
const RESAMPLES: usize = 4_000;

/// The middle of paired ratios, and between what it lies in 95 of 100 resamples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The geometric mean of what is left without the outermost tenth on either side.
    pub middle: f64,
    /// 2.5 of 100 lie below.
    pub from: f64,
    /// 2.5 of 100 lie above.
    pub to: f64,
}

impl Ratio {
    /// Of pairs (this, that) of the same rounds; both are above zero. `None` of none.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Ratio> {
        let logs: Vec<f64> = (pairs.iter())
            .map(|(this, that)| this.ln() - that.ln())
            .collect();
        let middle = trimmed_mean(&mut logs.clone())?;
        let mut drawn = Draws(0x9e37_79b9_7f4a_7c15);
        let mut middles: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let mut sample: Vec<f64> =
                    logs.iter().map(|_| logs[drawn.below(logs.len())]).collect();
                trimmed_mean(&mut sample)
            })
            .collect();
        middles.sort_by(f64::total_cmp);
        let at = |thousandths: usize| middles[middles.len() * thousandths / 1000].exp();
        Some(Ratio {
            middle: middle.exp(),
            from: at(25),
            to: at(975),
        })
    }
}

/// Without the smallest and the largest tenth.
fn trimmed_mean(samples: &mut [f64]) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    let cut = samples.len() / 10;
    let kept = &samples[cut..samples.len() - cut];
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

/// SplitMix64, always from the same seed: a table printed twice of the same figures is the same.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        (drawn % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    // Scenario: costs that differ by a tenth while the machine's pace drifts by half and jitters by a tenth: the ratio is found within two
    // hundredths, its bounds hold it and not one; the same costs on both sides are no difference.
    use super::*;

    /// Forty rounds; `more` of the first over the second.
    fn rounds(more: f64) -> Vec<(f64, f64)> {
        let mut draws = Draws(7);
        let mut jitter = |of: f64| of * (0.95 + draws.below(1000) as f64 / 10_000.0);
        (0..40)
            .map(|round| {
                let pace = 10.0 + f64::from(round) / 8.0;
                (jitter(pace * more), jitter(pace))
            })
            .collect()
    }

    #[test]
    fn a_small_difference_is_found_under_a_large_drift() {
        let ratio = Ratio::of(&rounds(1.1)).unwrap();
        assert!((ratio.middle - 1.1).abs() < 0.02, "{ratio:?}");
        assert!(ratio.from < 1.1 && 1.1 < ratio.to, "{ratio:?}");
        assert!(ratio.from > 1.05 && ratio.to < 1.15, "{ratio:?}");
        let same = Ratio::of(&rounds(1.0)).unwrap();
        assert!(same.from < 1.0 && 1.0 < same.to, "{same:?}");
        assert_eq!(Ratio::of(&rounds(1.1)), Some(ratio));
        assert_eq!(Ratio::of(&[]), None);
    }

    #[test]
    fn outliers_do_not_move_it() {
        let mut pairs = vec![(3.0, 2.0); 20];
        pairs[4] = (300.0, 2.0);
        pairs[9] = (0.001, 2.0);
        let ratio = Ratio::of(&pairs).unwrap();
        assert!((ratio.middle - 1.5).abs() < 1e-9, "{ratio:?}");
    }
}
