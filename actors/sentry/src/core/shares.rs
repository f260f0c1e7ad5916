//! Who has how much of a relayer's ask window. All clients of a sentry share one link to each relayer, and its window is
//! the relayer's; whoever publishes most must leave some of it to the others.
//!
//! A client may have at most three times what is free. One alone gets three quarters of the window, four greedy ones a
//! little less than a quarter each, and some is always free for whoever comes next. One request is always let through:
//! the largest would else never be.

use std::collections::BTreeMap;

use pqcnet_crypto::NodeId;

/// Units of the window, of 16 KiB each: what a relayer grants a link by default (docs/spec/link.md).
pub const WINDOW: u32 = 256;
/// Payload bytes that a unit covers.
const UNIT: usize = 16 << 10;
/// A client may have so many times what is free.
const GREED: u32 = 3;

/// The shares of one relayer's window.
#[derive(Debug, Default)]
pub struct Shares {
    used: BTreeMap<NodeId, u32>,
    total: u32,
}

/// Units that a request of so many payload bytes takes.
pub fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX)
        .max(1)
}

impl Shares {
    /// Takes units for a client's request, or refuses; what was taken is given back with the answer.
    pub fn take(&mut self, client: NodeId, units: u32) -> bool {
        let used = self.used.get(&client).copied().unwrap_or(0);
        let free = WINDOW.saturating_sub(self.total);
        if used > 0 && used.saturating_add(units) > free.saturating_mul(GREED) {
            return false;
        }
        *self.used.entry(client).or_default() += units;
        self.total += units;
        true
    }

    /// Gives units back.
    pub fn give(&mut self, client: NodeId, units: u32) {
        self.total = self.total.saturating_sub(units);
        if let Some(used) = self.used.get_mut(&client) {
            *used = used.saturating_sub(units);
            if *used == 0 {
                self.used.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    /// Takes single units in turns until nobody gets any more; what each has then, and what is free.
    fn greedy(clients: u8) -> (Vec<u32>, u32) {
        let mut shares = Shares::default();
        let mut got = vec![0; usize::from(clients)];
        loop {
            let before = got.clone();
            for (n, got) in (0..clients).zip(&mut got) {
                *got += u32::from(shares.take(client(n), 1));
            }
            if got == before {
                return (got, WINDOW - shares.total);
            }
        }
    }

    /// Scenario: clients that want all there is. One has three quarters, several have equal parts, and there is room for
    /// one that comes late, which gets in.
    #[test]
    fn the_greedy_leave_room() {
        assert_eq!(greedy(1), (vec![192], 64));
        for clients in [2, 4, 16] {
            let (got, free) = greedy(clients);
            let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
            assert!(most - least <= 1, "{got:?}");
            assert!(
                free >= WINDOW / (4 * u32::from(clients)),
                "{clients}: {free}"
            );
        }
    }

    /// Scenario: the largest request of a client that has nothing under way is let through though others hold nearly all;
    /// a second one is not, until something was given back.
    #[test]
    fn one_request_is_always_let_through() {
        let mut shares = Shares::default();
        assert!(shares.take(client(1), 190));
        assert!(shares.take(client(2), 64));
        assert!(!shares.take(client(2), 1));
        assert!(!shares.take(client(1), 1));
        shares.give(client(1), 190);
        assert!(shares.take(client(2), 1));
        shares.give(client(2), 65);
        assert!(shares.used.is_empty());
        assert_eq!(
            (shares.total, units(0), units(1), units(1 << 20)),
            (0, 1, 1, 64)
        );
    }
}
