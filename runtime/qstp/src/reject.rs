//! The Reject: `{stage u8, reason u8, detail u32}`, clear where no keys exist, sealed where they do.

use crate::error::{FoundBy, HandshakeError, Reason, Stage};
use crate::frame::{FrameType, HEADER_LEN, REJECT_LEN, SEALED_REJECT_LEN, framed, header};
use crate::schedule::OneShot;

fn body(stage: Stage, reason: Reason) -> [u8; REJECT_LEN] {
    let (code, detail) = reason.encode();
    let [a, b, c, d] = detail.to_be_bytes();
    [stage.number(), code, a, b, c, d]
}

pub(crate) fn clear(stage: Stage, reason: Reason) -> Vec<u8> {
    framed(FrameType::Reject, &body(stage, reason))
}

pub(crate) fn sealed(stage: Stage, reason: Reason, key: &OneShot) -> Vec<u8> {
    let head = header(FrameType::SealedReject, SEALED_REJECT_LEN);
    let mut text = body(stage, reason);
    let tag = key.seal(&head, &mut text);
    let mut out = Vec::with_capacity(HEADER_LEN + SEALED_REJECT_LEN);
    out.extend_from_slice(&head);
    out.extend_from_slice(&text);
    out.extend_from_slice(&tag);
    out
}

/// What a clear Reject says, or that it says nothing.
pub(crate) fn read_clear(body: &[u8]) -> Result<HandshakeError, Reason> {
    read(body, false)
}

/// What a sealed Reject says.
pub(crate) fn read_sealed(body: &[u8], key: &OneShot) -> Result<HandshakeError, Reason> {
    let head = header(FrameType::SealedReject, SEALED_REJECT_LEN);
    let mut sealed: [u8; SEALED_REJECT_LEN] = body.try_into().map_err(|_| Reason::Malformed)?;
    let plain = key
        .open(&head, &mut sealed)
        .map_err(|_| Reason::NotOpened)?;
    read(plain, true)
}

fn read(body: &[u8], sealed: bool) -> Result<HandshakeError, Reason> {
    let Ok([stage, code, a, b, c, d]) = <[u8; REJECT_LEN]>::try_from(body) else {
        return Err(Reason::Malformed);
    };
    Ok(HandshakeError {
        stage: Stage::of_number(stage).ok_or(Reason::Malformed)?,
        found_by: FoundBy::Peer { sealed },
        reason: Reason::decode(code, u32::from_be_bytes([a, b, c, d])),
    })
}
