//! Frames as bytes: a 4-byte big-endian length, then one `link.v1.Frame`.

use bytes::{BufMut, Bytes, BytesMut};
use pqcnet_protos::link::v1::{self as pb, frame::Kind};
use prost::Message as _;

use crate::config::{
    LINK_VERSION, LINK_VERSION_MIN, LinkConfig, MAX_SERVICES, MAX_SOFTWARE, PeerHello,
};
use crate::config::{MAX_COST, MAX_DETAIL, MAX_FRAME, MAX_KEEPALIVE, MAX_WINDOW, MIN_MAX_FRAME};
use crate::error::Fault;
use crate::ids::{Role, ServiceId, Trace};
use crate::text::printable;

pub(crate) const PREFIX: usize = 4;
/// Bytes looked at to name a frame's unknown kind: a key below 2^11 and its length; no frame kind is shorter.
const MAX_KEY: usize = 2;

/// Length of a frame on the wire, without its prefix.
pub(crate) fn len(frame: &pb::Frame) -> usize {
    frame.encoded_len()
}

/// Appends a frame whose length is `len`.
pub(crate) fn put(out: &mut BytesMut, frame: &pb::Frame, len: usize) {
    out.reserve(PREFIX + len);
    out.put_u32(u32::try_from(len).expect("senders check frames against max_frame"));
    frame.encode_raw(out);
}

pub(crate) fn of(kind: Kind) -> pb::Frame {
    pb::Frame { kind: Some(kind) }
}

pub(crate) fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Hello(_) => "Hello",
        Kind::Ready(_) => "Ready",
        Kind::Tell(_) => "Tell",
        Kind::Ask(_) => "Ask",
        Kind::Reply(_) => "Reply",
        Kind::Cancel(_) => "Cancel",
        Kind::Credit(_) => "Credit",
        Kind::Ping(_) => "Ping",
        Kind::Down(_) => "Down",
        Kind::Subscribe(_) => "Subscribe",
        Kind::Event(_) => "Event",
        Kind::Consumed(_) => "Consumed",
        Kind::Unsubscribe(_) => "Unsubscribe",
        Kind::Watch(_) => "Watch",
        Kind::Unwatch(_) => "Unwatch",
        Kind::Fate(_) => "Fate",
        Kind::Sequenced(_) => "Sequenced",
        Kind::Ack(_) => "Ack",
        Kind::Dropped(_) => "Dropped",
    }
}

/// The kind's number in `Frame`, for those of version 2.
pub(crate) fn number(kind: &Kind) -> u32 {
    match kind {
        Kind::Subscribe(_) => 11,
        Kind::Event(_) => 12,
        Kind::Consumed(_) => 13,
        Kind::Unsubscribe(_) => 14,
        Kind::Watch(_) => 15,
        Kind::Unwatch(_) => 16,
        Kind::Fate(_) => 17,
        Kind::Sequenced(_) => 18,
        Kind::Ack(_) => 19,
        Kind::Dropped(_) => 20,
        Kind::Hello(_) | Kind::Ready(_) | Kind::Tell(_) | Kind::Ask(_) | Kind::Reply(_) => 0,
        Kind::Cancel(_) | Kind::Credit(_) | Kind::Ping(_) | Kind::Down(_) => 0,
    }
}

/// Cuts a byte stream into frames. Holds at most one incomplete frame, and never more memory than twice the bytes that
/// have arrived for it; nothing while idle.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self, limit: u32) -> Result<Option<Kind>, Fault> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix);
        if len > limit {
            return Err(Fault::FrameTooLarge { len, limit });
        }
        let end = PREFIX + len as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let body = self.buffer.split_to(end).freeze().slice(PREFIX..);
        let head = body.first_chunk::<MAX_KEY>().copied();
        let frame = pb::Frame::decode(body).map_err(|_| Fault::Malformed)?;
        match frame.kind {
            Some(kind) => Ok(Some(kind)),
            // A kind of a later version decodes as none.
            None => Err(unknown(head.as_ref().map_or(&[], |head| &head[..]))),
        }
    }

    /// Bytes held of an incomplete frame.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// What to say of a frame without any kind known here: the number of its first field.
fn unknown(mut head: &[u8]) -> Fault {
    match prost::encoding::decode_key(&mut head) {
        Ok((number, _)) => Fault::UnknownFrame {
            number,
            version: LINK_VERSION,
        },
        Err(_) => Fault::Malformed,
    }
}

/// The first whole frames of `buffer`, at least one, until they reach `max` bytes. Nothing of them stays allocated here once
/// the buffer is empty.
pub(crate) fn take(buffer: &mut BytesMut, max: usize) -> Bytes {
    if buffer.len() <= max {
        return std::mem::take(buffer).freeze();
    }
    let mut end = 0;
    while end < max {
        let Some(prefix) = buffer
            .get(end..)
            .and_then(|rest| rest.first_chunk::<PREFIX>())
        else {
            break;
        };
        end += PREFIX + u32::from_be_bytes(*prefix) as usize;
    }
    if end >= buffer.len() {
        // Split at its end, it would hold on to all of what leaves.
        return std::mem::take(buffer).freeze();
    }
    buffer.split_to(end).freeze()
}

pub(crate) fn trace_to_proto(trace: Option<Trace>) -> Option<pb::Trace> {
    trace.map(|trace| pb::Trace {
        trace_hi: (trace.trace_id >> 64) as u64,
        trace_lo: trace.trace_id as u64,
        span: trace.span_id,
        sampled: trace.sampled,
    })
}

pub(crate) fn trace_from_proto(trace: Option<pb::Trace>) -> Option<Trace> {
    trace.map(|trace| Trace {
        trace_id: u128::from(trace.trace_hi) << 64 | u128::from(trace.trace_lo),
        span_id: trace.span,
        sampled: trace.sampled,
    })
}

/// The longest prefix of `text` within [`MAX_DETAIL`], fit to be shown.
pub(crate) fn detail(text: &str) -> String {
    printable(text, MAX_DETAIL)
}

pub(crate) fn hello(config: &LinkConfig) -> Kind {
    let mut services: Vec<u32> = config.services.iter().map(|service| service.0).collect();
    services.sort_unstable();
    services.dedup();
    services.truncate(MAX_SERVICES);
    let end = config.software.floor_char_boundary(MAX_SOFTWARE);
    Kind::Hello(pb::Hello {
        version_min: LINK_VERSION_MIN,
        version_max: LINK_VERSION,
        role: i32::from(config.role.number()),
        software: config.software[..end].to_owned(),
        services,
        max_frame: config.limits.max_frame,
        ask_window: config.limits.ask_window,
        keepalive_ms: u32::try_from(config.limits.keepalive.as_millis()).unwrap_or(u32::MAX),
    })
}

pub(crate) fn check_hello(hello: pb::Hello) -> Result<PeerHello, Fault> {
    let (min, max) = (hello.version_min, hello.version_max);
    // The highest that both speak.
    let version = max.min(LINK_VERSION);
    if version < min.max(LINK_VERSION_MIN) {
        return Err(Fault::Version { min, max });
    }
    let role = Role::from_number(hello.role).ok_or(Fault::UnknownRole(hello.role))?;
    let limits = |field| Err(Fault::Limits { field });
    if hello.software.len() > MAX_SOFTWARE {
        return limits("software");
    }
    if hello.services.len() > MAX_SERVICES || !hello.services.is_sorted() {
        return limits("services");
    }
    if !(MIN_MAX_FRAME..=MAX_FRAME).contains(&hello.max_frame) {
        return limits("max_frame");
    }
    if !(MAX_COST..=MAX_WINDOW).contains(&hello.ask_window) {
        return limits("ask_window");
    }
    let keepalive = std::time::Duration::from_millis(hello.keepalive_ms.into());
    if keepalive.is_zero() || keepalive > MAX_KEEPALIVE {
        return limits("keepalive_ms");
    }
    Ok(PeerHello {
        version,
        role,
        software: printable(&hello.software, MAX_SOFTWARE),
        services: hello.services.into_iter().map(ServiceId).collect(),
        max_frame: hello.max_frame,
        ask_window: hello.ask_window,
        keepalive,
    })
}
