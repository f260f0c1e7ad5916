//! How often a node's log speaks of strangers: each is worth a line, a flood of them is not worth a full disk.

use std::time::Duration;

/// Lines in a second.
const A_SECOND: u32 = 20;

/// Counts lines about strangers, and those that were not written.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    second: u64,
    told: u32,
    untold: u64,
}

impl Telling {
    /// Whether the next stranger gets a line now. With the first of a new second comes how many got none before it.
    pub(crate) fn next(&mut self, now: Duration) -> (bool, Option<u64>) {
        let mut missed = None;
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.told = 0;
            missed = Some(std::mem::take(&mut self.untold)).filter(|count| *count > 0);
        }
        let tells = self.told < A_SECOND;
        if tells {
            self.told += 1;
        } else {
            self.untold += 1;
        }
        (tells, missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood within one second, then one stranger in a later one: so many lines, and the count of the rest.
    #[test]
    fn a_flood_is_counted() {
        let mut telling = Telling::default();
        let now = Duration::from_millis(7_300);
        let told = (0..1000).filter(|_| telling.next(now).0).count();
        assert_eq!(told, A_SECOND as usize);
        let later = Duration::from_secs(9);
        assert_eq!(telling.next(later), (true, Some(980)));
        assert_eq!(telling.next(later), (true, None));
    }
}
