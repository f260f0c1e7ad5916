// Scenarios: scopes nest and survive a panic; a ratio decides how many traces begin; steps have ids of their own that
// are written as text and read back, and exist only where somebody takes them.
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use super::*;

fn tracer(ratio: f64) -> Tracer {
    let tracer = Tracer::new(&[7; 32], "node");
    tracer.set_ratio(ratio);
    tracer
}

// A scope inside a scope: the inner one wins, the outer one returns, and a panic restores it too.
#[test]
fn scopes_nest_and_survive_a_panic() {
    let cx = |span_id| TraceCx {
        trace_id: 7,
        span_id,
        sampled: true,
    };
    let (outer, inner) = (cx(1), cx(2));
    outer.scope(|| {
        inner.scope(|| assert_eq!(TraceCx::current(), inner));
        assert_eq!(TraceCx::current(), outer);
        let caught = std::panic::catch_unwind(|| inner.scope(|| panic!("inside a scope")));
        assert!(caught.is_err());
        assert_eq!(TraceCx::current(), outer);
    });
    assert_eq!(TraceCx::current(), TraceCx::NONE);
}

// None, all, and about one in a hundred; ids differ, also between nodes of one seed.
#[test]
fn the_ratio_decides_how_many_traces_begin() {
    let begun = |ratio: f64, of: usize| {
        let tracer = tracer(ratio);
        let all = (0..of).map(|_| tracer.begin());
        all.filter(|cx| *cx != TraceCx::NONE).collect::<Vec<_>>()
    };
    assert_eq!(begun(0.0, 1000), []);
    assert_eq!(begun(-1.0, 1000), []);
    let all = begun(1.0, 1000);
    assert_eq!(all.len(), 1000);
    let ids: std::collections::BTreeSet<u128> = all.iter().map(|cx| cx.trace_id).collect();
    assert_eq!(ids.len(), 1000);
    assert!(all.iter().all(|cx| cx.sampled && cx.span_id == 0));
    // Seeded, so exact: a change of the ids' making shows here.
    let few = begun(0.01, 100_000).len();
    assert!((900..1100).contains(&few), "{few}");
    let other = Tracer::new(&[7; 32], "another");
    other.set_ratio(1.0);
    assert_ne!(all[0].trace_id, other.begin().trace_id);
}

// Ids are pinned as text, and a text of any other shape is none.
#[test]
fn ids_are_written_and_read() {
    let ids = Ids {
        trace_id: 0xfeed,
        span_id: 0xa,
        parent_id: u64::MAX,
    };
    let text = "0000000000000000000000000000feed-000000000000000a-ffffffffffffffff";
    assert_eq!(ids.to_string(), text);
    assert_eq!(text.parse(), Ok(ids));
    for bad in [
        "",
        "1-2",
        "1-2-3-4",
        "x-2-3",
        "1-x-3",
        "1-2-x",
        "1-2-10000000000000000",
    ] {
        assert_eq!(bad.parse::<Ids>(), Err(NoIds), "{bad}");
    }
}

/// Keeps the ids of the spans it is given.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<(String, String)>>>);

struct Read(String, String);

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            IDS_FIELD => self.0 = format!("{value:?}"),
            "otel.name" => self.1 = format!("{value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut read = Read(String::new(), String::new());
        span.record(&mut read);
        let mut kept = self.0.lock().expect("no panic inside");
        kept.push((read.0, read.1));
        span::Id::from_u64(kept.len() as u64)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

// A sampled trace records a step and goes on under its id; one that is not sampled, and one that nobody takes, do not.
#[test]
fn steps_exist_where_somebody_takes_them() {
    let tracer = tracer(1.0);
    let root = tracer.begin();
    let step = |cx| tracer.step(cx, "Publish", StepKind::Producer, &"client");
    assert!(step(root).is_none());
    let keeper = Keeper::default();
    tracing::subscriber::with_default(keeper.clone(), || {
        let first = step(root).expect("taken");
        let second = step(first.cx()).expect("taken");
        second.scope(|| assert_eq!(TraceCx::current(), second.cx()));
        second.fail("on purpose");
        let unsampled = TraceCx {
            sampled: false,
            ..root
        };
        assert!(step(unsampled).is_none());
        assert!(step(TraceCx::NONE).is_none());
        let kept = keeper.0.lock().expect("no panic inside").clone();
        assert_eq!(kept.len(), 2);
        let ids: Vec<Ids> = kept
            .iter()
            .map(|(ids, _)| ids.parse().expect("ids"))
            .collect();
        assert_eq!(kept[0].1, "\"Publish\"");
        assert_eq!(ids[0].trace_id, root.trace_id);
        assert_eq!((ids[0].parent_id, ids[0].span_id), (0, first.cx().span_id));
        assert_eq!(
            (ids[1].parent_id, ids[1].span_id),
            (first.cx().span_id, second.cx().span_id)
        );
        assert_ne!(ids[0].span_id, ids[1].span_id);
    });
}
