//! The trace context that travels with every message, and the spans that are recorded of a sampled one.
//!
//! ```text
//!   TraceCx {trace, span, sampled} ── travels in each Letter and over links
//!      └─ step() ─▶ Step: a `tracing` span under TARGET with its ids as a field; its own TraceCx goes on
//! ```
//!
//! Ids are ours, not the exporter's: they are the same on every node, with any exporter or none. Whoever exports takes
//! the spans of [`TARGET`] and puts [`Ids`] in the place of its own. Off, a message costs one comparison.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand_core::Rng as _;
use tracing::Span;

use crate::rng::StreamRng;

/// Which trace a piece of work belongs to. All zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceCx {
    /// The whole flow, constant from its first message on.
    pub trace_id: u128,
    /// The step that caused this one; 0: none did.
    pub span_id: u64,
    /// Whether spans of this trace are recorded.
    pub sampled: bool,
}

thread_local! {
    static CURRENT: Cell<TraceCx> = const { Cell::new(TraceCx::NONE) };
}

impl TraceCx {
    /// Belongs to no trace.
    pub const NONE: TraceCx = TraceCx {
        trace_id: 0,
        span_id: 0,
        sampled: false,
    };

    /// The context of the handler, or of the [`TraceCx::scope`], that runs on this thread now.
    #[inline]
    pub fn current() -> TraceCx {
        CURRENT.with(Cell::get)
    }

    /// Runs `f` with this as the current context, so messages sent in it carry it.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(self);
        f()
    }
}

/// Restores the previous context when dropped, also by a panic.
pub(crate) struct Entered(TraceCx);

impl Entered {
    #[inline]
    pub(crate) fn new(trace: TraceCx) -> Self {
        Entered(CURRENT.with(|cell| cell.replace(trace)))
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|cell| cell.set(self.0));
    }
}

/// The `tracing` target of every span of a [`Step`]. A log leaves it out, an exporter takes nothing else.
pub const TARGET: &str = "pqcnet_trace";

/// The span field that holds [`Ids`] as text.
pub const IDS_FIELD: &str = "pqcnet.ids";

/// What kind of work a step is, in OpenTelemetry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Makes work that others do later.
    Producer,
    /// Does work that another made.
    Consumer,
    /// Within one node.
    Internal,
}

impl StepKind {
    const fn name(self) -> &'static str {
        match self {
            StepKind::Producer => "producer",
            StepKind::Consumer => "consumer",
            StepKind::Internal => "internal",
        }
    }
}

/// The ids of a recorded span: `trace-span-parent` in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Its trace.
    pub trace_id: u128,
    /// Itself.
    pub span_id: u64,
    /// The step that caused it; 0: none did.
    pub parent_id: u64,
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ids {
            trace_id,
            span_id,
            parent_id,
        } = self;
        write!(f, "{trace_id:032x}-{span_id:016x}-{parent_id:016x}")
    }
}

/// A text that is not [`Ids`]: somebody else's span, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no ids of a span")]
pub struct NoIds;

impl FromStr for Ids {
    type Err = NoIds;

    fn from_str(text: &str) -> Result<Ids, NoIds> {
        let mut parts = text.split('-');
        let (Some(trace), Some(span), Some(parent), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoIds);
        };
        let id = |text: &str| u64::from_str_radix(text, 16).map_err(|_| NoIds);
        Ok(Ids {
            trace_id: u128::from_str_radix(trace, 16).map_err(|_| NoIds)?,
            span_id: id(span)?,
            parent_id: id(parent)?,
        })
    }
}

/// A recorded step of a trace. It ends when it is dropped.
#[derive(Debug)]
pub struct Step {
    span: Span,
    cx: TraceCx,
}

impl Step {
    /// What messages that this step sends carry.
    pub fn cx(&self) -> TraceCx {
        self.cx
    }

    /// Runs `f` inside the step.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        self.cx.scope(|| self.span.in_scope(f))
    }

    /// Says that the step failed, and why.
    pub fn fail(&self, why: impl fmt::Display) {
        self.span.record("otel.status_code", "ERROR");
        self.span
            .record("otel.status_description", tracing::field::display(why));
    }
}

/// Where a node's traces and steps get their ids, and which of its traces are sampled.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Of 2^64 traces so many are sampled; 0: none is even begun.
    threshold: AtomicU64,
    made: AtomicU64,
    salts: [u64; 2],
}

impl Tracer {
    /// In a simulation the ids depend on seed and node alone.
    pub(crate) fn new(seed: &[u8; 32], node: &str) -> Tracer {
        let mut rng = StreamRng::derive(seed, &[b"trace", node.as_bytes()]);
        Tracer {
            threshold: AtomicU64::new(0),
            made: AtomicU64::new(0),
            salts: [rng.next_u64(), rng.next_u64()],
        }
    }

    pub(crate) fn set_ratio(&self, ratio: f64) {
        // 2^64 as a float; the conversion saturates.
        let threshold = (ratio.clamp(0.0, 1.0) * 18_446_744_073_709_551_616.0) as u64;
        self.threshold.store(threshold, Relaxed);
    }

    /// A number no other trace or step of this node has, and few of any.
    fn id(&self, salt: u64) -> u64 {
        let n = self.made.fetch_add(1, Relaxed);
        mix(salt ^ mix(n)).max(1)
    }

    #[inline]
    pub(crate) fn begin(&self) -> TraceCx {
        let threshold = self.threshold.load(Relaxed);
        if threshold == 0 {
            return TraceCx::NONE;
        }
        let low = self.id(self.salts[0]);
        if mix(low) >= threshold && threshold != u64::MAX {
            return TraceCx::NONE;
        }
        let high = mix(low ^ self.salts[1]);
        TraceCx {
            trace_id: (u128::from(high) << 64) | u128::from(low),
            span_id: 0,
            sampled: true,
        }
    }

    /// `None` when the trace is not sampled, or nobody in this process takes its spans: what is sent on then names the
    /// last step that somebody took.
    pub(crate) fn step(
        &self,
        cx: TraceCx,
        name: &'static str,
        kind: StepKind,
        actor: &dyn fmt::Display,
    ) -> Option<Step> {
        if !cx.sampled {
            return None;
        }
        let ids = Ids {
            trace_id: cx.trace_id,
            span_id: self.id(self.salts[1]),
            parent_id: cx.span_id,
        };
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "step",
            otel.name = name,
            otel.kind = kind.name(),
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
            pqcnet.actor = %actor,
            pqcnet.ids = %ids,
        );
        let cx = TraceCx {
            span_id: ids.span_id,
            ..cx
        };
        (!span.is_disabled()).then_some(Step { span, cx })
    }
}

/// The finaliser of SplitMix64: a bijection, so distinct numbers keep distinct ids.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
