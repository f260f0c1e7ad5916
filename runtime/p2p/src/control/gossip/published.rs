//! What this node published lately. The same again is news to nobody, and gossipsub warns of it, though here it is in order: an advert
//! goes out whenever a link is new.

use std::collections::VecDeque;
use std::time::Duration;

use super::SEEN;

/// More than a node publishes in [`SEEN`]; what is beyond is gossipsub's to judge.
const MOST: usize = 64;

/// Names and times, oldest first.
#[derive(Debug, Default)]
pub(in crate::control) struct Published(VecDeque<([u8; 32], Duration)>);

impl Published {
    /// Whether gossipsub still knows the message.
    pub(in crate::control) fn holds(&mut self, id: &[u8; 32], now: Duration) -> bool {
        while self.0.front().is_some_and(|(_, at)| *at + SEEN <= now) {
            self.0.pop_front();
        }
        self.0.iter().any(|(known, _)| known == id)
    }

    /// It went out.
    pub(in crate::control) fn note(&mut self, id: [u8; 32], now: Duration) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((id, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A message is known until it may be published anew; of more than there is room for the newest are.
    #[test]
    fn known_for_a_while() {
        let mut published = Published::default();
        let at = Duration::from_secs;
        published.note([1; 32], at(5));
        assert!(published.holds(&[1; 32], at(5) + SEEN - Duration::from_nanos(1)));
        assert!(!published.holds(&[2; 32], at(5)));
        assert!(!published.holds(&[1; 32], at(5) + SEEN));
        for number in 0..=MOST as u8 {
            published.note([number; 32], at(100));
        }
        assert!(!published.holds(&[0; 32], at(100)));
        assert!(published.holds(&[1; 32], at(100)));
    }
}
