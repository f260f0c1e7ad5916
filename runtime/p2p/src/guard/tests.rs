use super::*;

fn config() -> GuardConfig {
    GuardConfig {
        waiting: 4,
        half_open: 2,
        patience: s(1),
        half_open_per_prefix: 2,
        starts_per_s: 1,
        starts_burst: 2,
        prefixes: 3,
        cpu_per_s: Duration::from_millis(100),
        cpu_burst: Duration::from_millis(100),
        puzzle_bits_min: 10,
        puzzle_bits_max: 12,
    }
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One handshake from an address: opened, judged, closed.
fn start(guard: &mut Guard, now: Duration, from: &str) -> Verdict {
    let (ticket, _) = guard.open(now, ip(from)).unwrap();
    let verdict = guard.admit(now, &ticket);
    guard.close(ticket);
    verdict
}

/// Neighbours count together, an IPv4 address inside IPv6 as the IPv4 address that it is.
#[test]
fn prefixes() {
    let of = |text: &str| Prefix::of(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), Prefix::V4([192, 0, 2]));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.200"));
    assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::2"));
    assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
}

/// A prefix gets no more than its share; beyond the whole number, the one that has been silent longest makes room, and
/// its own end later counts for nothing.
#[test]
fn waiting_places() {
    let mut guard = Guard::new(config(), s(0));
    let open = |guard: &mut Guard, at, from: &str| guard.open(s(at), ip(from));
    let (first, _) = open(&mut guard, 0, "192.0.2.1").unwrap();
    let (second, _) = open(&mut guard, 1, "192.0.2.2").unwrap();
    let third = open(&mut guard, 1, "192.0.2.3");
    assert_eq!(third, Err(Refused::HalfOpenPrefix));
    let (third, _) = open(&mut guard, 2, "198.51.100.1").unwrap();
    let (fourth, none) = guard.open(s(3), None).unwrap();
    assert_eq!(none, None);
    // The first has spoken and been asked for a puzzle: it is younger than the second now.
    guard.charge(s(3), s(1));
    let asked = guard.admit(s(3), &first);
    assert!(matches!(asked, Verdict::Challenge { .. }), "{asked:?}");
    let (fifth, gone) = open(&mut guard, 4, "203.0.113.1").unwrap();
    assert_eq!(gone, Some(second.id()));
    let late = guard.answer(s(4), &second);
    assert_eq!(late, Err(Refused::Displaced));
    let (sixth, gone) = open(&mut guard, 4, "192.0.2.9").unwrap();
    assert_eq!(gone, Some(third.id()));
    for ticket in [first, second, third, fourth, fifth, sixth] {
        guard.close(ticket);
    }
    let counts = GuardCounts {
        opened: 6,
        refused: 1,
        displaced: 2,
        challenged: 1,
        half_open: 0,
    };
    assert_eq!(guard.counts(), counts);
    assert!(guard.waiting.is_empty() && guard.places.is_empty() && guard.held.is_empty());
}

/// Handshakes that were computed for are refused beyond their number, until one has kept its place for too long.
#[test]
fn answered_places() {
    let mut guard = Guard::new(config(), s(0));
    let taken = |guard: &mut Guard, from: &str| guard.open(s(0), ip(from)).unwrap().0;
    let tickets = ["192.0.2.1", "192.0.3.1", "192.0.4.1"].map(|from| taken(&mut guard, from));
    let [first, second, third] = &tickets;
    assert_eq!(guard.answer(s(0), first), Ok(None));
    assert_eq!(guard.answer(s(0), first), Ok(None));
    assert_eq!(guard.answer(s(0), second), Ok(None));
    assert_eq!(guard.answer(s(0), third), Err(Refused::HalfOpen));
    assert_eq!(guard.answer(s(1), third), Ok(Some(first.id())));
    for ticket in tickets {
        guard.close(ticket);
    }
    assert!(guard.answered.is_empty() && guard.places.is_empty());
    assert_eq!(guard.counts().half_open, 0);
}

/// Strangers from few or many prefixes take all they can get and never speak: an honest peer from elsewhere finds a
/// place, as do several, and the dear places are all free for them.
#[test]
fn prefixes_together_leave_places() {
    for hostile in [4u8, 16, 128] {
        let mut guard = Guard::new(GuardConfig::default(), s(0));
        let mut tickets = Vec::new();
        for n in (0..hostile).cycle().take(20_000) {
            if let Ok((ticket, _)) = guard.open(s(0), ip(&format!("10.0.{n}.1"))) {
                tickets.push(ticket);
            }
        }
        assert!(guard.counts().half_open <= 8192);
        for honest in 0..4 {
            let (ticket, _) = guard.open(s(0), ip(&format!("192.0.{honest}.1"))).unwrap();
            assert_eq!(guard.admit(s(0), &ticket), Verdict::Accept);
            assert_eq!(guard.answer(s(0), &ticket), Ok(None));
            tickets.push(ticket);
        }
        for ticket in tickets {
            guard.close(ticket);
        }
        assert_eq!(guard.counts().half_open, 0);
    }
}

/// Silent strangers from more prefixes than rates are remembered of, who come again as soon as they are gone: each is
/// counted by its own name, so that none of them stands in for anybody else, and an honest peer is let in throughout.
#[test]
fn prefixes_beyond_the_table() {
    let config = GuardConfig::default();
    let many = (config.waiting + config.half_open) as u32;
    assert!(many as usize > config.prefixes + config.half_open_per_prefix);
    let mut guard = Guard::new(config, s(0));
    let address = |n: u32| {
        Some(IpAddr::from(std::net::Ipv4Addr::from(
            (10 << 24) + (n << 8) + 1,
        )))
    };
    let mut held: BTreeMap<u64, Ticket> = BTreeMap::new();
    for second in 0..5 {
        for n in 0..many {
            let (ticket, displaced) = guard.open(s(second), address(n)).unwrap();
            held.insert(ticket.id(), ticket);
            if let Some(ticket) = displaced.and_then(|id| held.remove(&id)) {
                guard.close(ticket);
            }
        }
        let (ticket, _) = guard.open(s(second), ip("192.0.2.1")).unwrap();
        assert_eq!(guard.admit(s(second), &ticket), Verdict::Accept);
        assert_eq!(guard.answer(s(second), &ticket), Ok(None));
        guard.close(ticket);
        assert!(guard.held.len() <= many as usize);
    }
    assert_eq!(guard.counts().refused, 0);
}

/// Whoever speaks from more prefixes than are remembered costs a newcomer a puzzle and not its place.
#[test]
fn a_full_table_is_a_puzzle() {
    let mut guard = Guard::new(config(), s(0));
    for n in 0..40 {
        start(&mut guard, s(0), &format!("192.0.{n}.1"));
    }
    let honest = start(&mut guard, s(0), "198.51.100.1");
    assert_eq!(honest, Verdict::Challenge { bits: 12 });
    assert_eq!(guard.starts.len(), 4);
}

/// A prefix over its rate is challenged, harder the longer it goes on; others are not, and time heals.
#[test]
fn rate_of_one_prefix() {
    let mut guard = Guard::new(config(), s(0));
    let noisy: Vec<Verdict> = (0..8)
        .map(|_| start(&mut guard, s(0), "192.0.2.1"))
        .collect();
    let asked = |bits| Verdict::Challenge { bits };
    let expected = [
        Verdict::Accept,
        Verdict::Accept,
        asked(10),
        asked(11),
        asked(11),
        asked(12),
        asked(12),
        asked(12),
    ];
    assert_eq!(noisy, expected);
    assert_eq!(start(&mut guard, s(0), "198.51.100.1"), Verdict::Accept);
    assert_eq!(guard.counts().challenged, 6);
    assert_eq!(start(&mut guard, s(7), "192.0.2.1"), Verdict::Accept);
}

/// Once handshakes took more CPU than budgeted, every prefix is challenged until the budget has refilled.
#[test]
fn cpu_budget() {
    let mut guard = Guard::new(config(), s(0));
    guard.charge(s(0), Duration::from_millis(100));
    assert_eq!(start(&mut guard, s(0), "192.0.2.1"), Verdict::Accept);
    guard.charge(s(0), Duration::from_millis(150));
    assert_eq!(
        start(&mut guard, s(0), "198.51.100.1"),
        Verdict::Challenge { bits: 11 }
    );
    assert_eq!(
        start(&mut guard, s(1), "198.51.100.1"),
        Verdict::Challenge { bits: 10 }
    );
    assert_eq!(start(&mut guard, s(2), "198.51.100.1"), Verdict::Accept);
    // Debt has a floor: ten bursts, ten seconds here.
    guard.charge(s(2), s(1000));
    assert_eq!(
        start(&mut guard, s(2), "203.0.113.1"),
        Verdict::Challenge { bits: 12 }
    );
    assert_eq!(start(&mut guard, s(13), "203.0.113.1"), Verdict::Accept);
}

/// The table is bounded: newcomers share an entry until quiet prefixes are swept out.
#[test]
fn table_is_bounded() {
    let mut guard = Guard::new(config(), s(0));
    for n in 0..3 {
        assert_eq!(
            start(&mut guard, s(0), &format!("192.0.{n}.1")),
            Verdict::Accept
        );
    }
    for n in 3..5 {
        assert_eq!(
            start(&mut guard, s(0), &format!("192.0.{n}.1")),
            Verdict::Accept
        );
    }
    assert_eq!(
        start(&mut guard, s(0), "192.0.5.1"),
        Verdict::Challenge { bits: 10 }
    );
    assert!(guard.starts.len() <= 4);
    for n in 6..9 {
        assert_eq!(
            start(&mut guard, s(9), &format!("192.0.{n}.1")),
            Verdict::Accept
        );
    }
    assert!(guard.starts.len() <= 4);
}

/// A clock that stands still or steps back neither panics nor refills.
#[test]
fn clock_stepping_back() {
    let mut guard = Guard::new(config(), s(10));
    for _ in 0..3 {
        start(&mut guard, s(10), "192.0.2.1");
    }
    assert_eq!(
        start(&mut guard, s(5), "192.0.2.1"),
        Verdict::Challenge { bits: 11 }
    );
}
