//! Every limit of a link, and what each side says of itself.

use std::time::Duration;

use crate::ids::{Role, ServiceId};

/// The highest link version spoken here. Version 2 has subscriptions, watches and sequenced tells.
pub const LINK_VERSION: u32 = 2;
/// The lowest link version spoken here: the one before, so that neighbouring releases run together.
pub const LINK_VERSION_MIN: u32 = 1;
/// Largest frame, without its 4-byte length: a batch of 1 MiB and its envelope.
pub const MAX_FRAME: u32 = 1024 * 1024 + 64 * 1024;
/// Largest frame before the peer's Hello is accepted; a Hello needs under 300 bytes.
pub const MAX_HELLO_FRAME: u32 = 4 * 1024;
/// Smallest largest-frame that a peer may declare: a full Hello, any Reply without payload, a Down.
pub const MIN_MAX_FRAME: u32 = 4 * 1024;
/// Payload bytes that one unit of credit covers. A message costs at least one unit, so a window bounds both the number of
/// messages and the memory they pin: a small payload shares one read of at most this size.
pub const UNIT: usize = 16 * 1024;
/// Units that the largest frame costs; a window must hold at least this many.
pub const MAX_COST: u32 = MAX_FRAME.div_ceil(UNIT as u32);
/// Most units a window may have: 64 MiB.
pub const MAX_WINDOW: u32 = 4096;
/// Most services in a Hello.
pub const MAX_SERVICES: usize = 32;
/// Longest software text in a Hello, in bytes.
pub const MAX_SOFTWARE: usize = 64;
/// Longest detail in a Reply or Down, in bytes; a longer one is cut.
pub const MAX_DETAIL: usize = 256;
/// Longest deadline an ask carries; a longer one is cut to it.
pub const MAX_ASK_TIME: Duration = Duration::from_secs(600);
/// Longest keepalive interval that a peer may declare.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(600);

/// What a payload of this many bytes costs.
pub fn cost(payload_len: usize) -> u32 {
    u32::try_from(payload_len.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

/// What this side is, and its limits.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The role it claims.
    pub role: Role,
    /// Name and version of the software; cut to [`MAX_SOFTWARE`].
    pub software: String,
    /// Services it serves on this link.
    pub services: Vec<ServiceId>,
    /// Its limits.
    pub limits: Limits,
}

impl LinkConfig {
    /// A side with the usual limits.
    pub fn new(role: Role, services: impl IntoIterator<Item = ServiceId>) -> LinkConfig {
        LinkConfig {
            role,
            software: concat!("pqcnet/", env!("CARGO_PKG_VERSION")).to_owned(),
            services: services.into_iter().collect(),
            limits: Limits::default(),
        }
    }
}

/// One side's limits. [`Limits::default`] says why each number.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame it accepts, in bytes; between [`MIN_MAX_FRAME`] and [`MAX_FRAME`].
    pub max_frame: u32,
    /// Units of asks it accepts unanswered; between [`MAX_COST`] and [`MAX_WINDOW`].
    pub ask_window: u32,
    /// Units of credit it grants per (service, class); between [`MAX_COST`] and [`MAX_WINDOW`].
    pub tell_window: u32,
    /// Bytes that may wait for the socket before `send` refuses.
    pub max_outbound: usize,
    /// Hello and Ready must be through by then.
    pub hello_timeout: Duration,
    /// A Ping goes out when nothing else did for this long.
    pub keepalive: Duration,
    /// The peer is taken for dead when nothing came for this long, or three times its own keepalive if that is longer.
    pub silent_after: Duration,
    /// An orderly close waits this long for asks the peer still waits for.
    pub drain_timeout: Duration,
    /// A frame whose first byte has come must be whole within this, or have grown by 64 KiB, which then has the same time again.
    pub frame_timeout: Duration,
    /// The same for what is written: 64 KiB must get into the socket in this time. The driver keeps it.
    pub write_timeout: Duration,
    /// Messages, subscriptions and watches that the peer may not send, before the link ends.
    pub max_refusals: u32,
}

impl Default for Limits {
    /// - ask and tell windows of 256 units (4 MiB): at 1 KiB a message and 1 ms round trip, 256,000 messages a second;
    /// - 4 MiB outbound: one window ahead of the socket;
    /// - 10 s for the hello: three lost TCP packets;
    /// - keepalive 10 s, silent after 30 s: a dead peer is noticed before a drain (30 s) is over;
    /// - 30 s for 64 KiB of a frame, or the rest of it, to come, and for as much to be written: 2 KB/s, less than any link that is of
    ///   use;
    /// - 64 refusals: more than a peer makes that mistakes its own role, soon reached by one that tries doors.
    fn default() -> Self {
        Limits {
            max_frame: MAX_FRAME,
            ask_window: 256,
            tell_window: 256,
            max_outbound: 4 * 1024 * 1024,
            hello_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            silent_after: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_refusals: 64,
        }
    }
}

impl Limits {
    /// The same limits, each moved into its allowed range.
    pub(crate) fn clamped(mut self) -> Limits {
        self.max_frame = self.max_frame.clamp(MIN_MAX_FRAME, MAX_FRAME);
        self.ask_window = self.ask_window.clamp(MAX_COST, MAX_WINDOW);
        self.tell_window = self.tell_window.clamp(MAX_COST, MAX_WINDOW);
        self.keepalive = self
            .keepalive
            .clamp(Duration::from_millis(1), MAX_KEEPALIVE);
        self
    }
}

/// What the peer said of itself. The role is only a claim until the caller has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The link version that both speak.
    pub version: u32,
    /// The role it claims.
    pub role: Role,
    /// Name and version of its software.
    pub software: String,
    /// Services it serves on this link, ascending.
    pub services: Vec<ServiceId>,
    /// Largest frame it accepts.
    pub max_frame: u32,
    /// Units of asks it accepts unanswered.
    pub ask_window: u32,
    /// It sends something at least this often.
    pub keepalive: Duration,
}
