//! The frame around every message and record: `{type u8, length u24 big-endian}`, then the body.
//!
//! In version 1 every handshake message has one length, so a header alone is refused when it lies; only an M1 of another
//! version may be of another length, within [`MAX_HANDSHAKE_MESSAGE`].

use crate::wire::{M1, M2, M3, RETRY_LEN};

/// Bytes of a header.
pub const HEADER_LEN: usize = 4;
/// The longest handshake message, header included: what a peer can make a node hold before it is known. M2, the longest
/// of version 1, has 6,575 bytes.
pub const MAX_HANDSHAKE_MESSAGE: usize = 8_192;
/// Body of a clear Reject.
pub(crate) const REJECT_LEN: usize = 6;
/// Body of a sealed Reject.
pub(crate) const SEALED_REJECT_LEN: usize = REJECT_LEN + 16;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// The initiator's first message.
    M1,
    /// A token and a puzzle.
    Retry,
    /// The responder's message.
    M2,
    /// The initiator's second message.
    M3,
    /// A refusal in clear.
    Reject,
    /// A refusal under the handshake's keys.
    SealedReject,
    /// A record of the established channel.
    Record,
}

impl FrameType {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            FrameType::M1 => 1,
            FrameType::Retry => 2,
            FrameType::M2 => 3,
            FrameType::M3 => 4,
            FrameType::Reject => 5,
            FrameType::SealedReject => 6,
            FrameType::Record => 0x10,
        }
    }

    /// The type of a number.
    pub const fn of_number(number: u8) -> Option<FrameType> {
        match number {
            1 => Some(FrameType::M1),
            2 => Some(FrameType::Retry),
            3 => Some(FrameType::M2),
            4 => Some(FrameType::M3),
            5 => Some(FrameType::Reject),
            6 => Some(FrameType::SealedReject),
            0x10 => Some(FrameType::Record),
            _ => None,
        }
    }
}

/// A header that no handshake message has; the peer erred, or speaks something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No handshake message has this type.
    #[error("no handshake message has the type {got:#04x}")]
    Type {
        /// On the wire.
        got: u8,
    },
    /// Messages of this type have another length.
    #[error("a {of:?} message cannot have {got} bytes")]
    Length {
        /// Its type.
        of: FrameType,
        /// Body bytes announced, or present.
        got: usize,
    },
}

/// The header of a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub frame: FrameType,
    /// Bytes that follow.
    pub body: usize,
}

impl Header {
    /// Reads a header and checks type and length, so that nothing need be allocated for a lie.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let [number, a, b, c] = *bytes;
        let body = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let frame = match FrameType::of_number(number) {
            None | Some(FrameType::Record) => return Err(FrameError::Type { got: number }),
            Some(frame) => frame,
        };
        let fits = match frame {
            FrameType::M1 => (1..=MAX_HANDSHAKE_MESSAGE - HEADER_LEN).contains(&body),
            FrameType::Retry => body == RETRY_LEN,
            FrameType::M2 => body == M2::LEN,
            FrameType::M3 => body == M3::LEN,
            FrameType::Reject => body == REJECT_LEN,
            FrameType::SealedReject => body == SEALED_REJECT_LEN,
            FrameType::Record => false,
        };
        if fits {
            Ok(Header { frame, body })
        } else {
            Err(FrameError::Length {
                of: frame,
                got: body,
            })
        }
    }

    /// Splits one whole message into its header and body.
    pub fn split(message: &[u8]) -> Result<(Header, &[u8]), FrameError> {
        let Some((head, body)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Length {
                of: FrameType::M1,
                got: message.len(),
            });
        };
        let header = Header::parse(head)?;
        if header.body == body.len() {
            Ok((header, body))
        } else {
            Err(FrameError::Length {
                of: header.frame,
                got: body.len(),
            })
        }
    }
}

/// The four bytes in front of a body.
pub(crate) fn header(frame: FrameType, body: usize) -> [u8; HEADER_LEN] {
    debug_assert!(body < 1 << 24, "a frame's length has 24 bits");
    [
        frame.number(),
        (body >> 16) as u8,
        (body >> 8) as u8,
        body as u8,
    ]
}

pub(crate) fn framed(frame: FrameType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    out.extend_from_slice(&header(frame, body.len()));
    out.extend_from_slice(body);
    out
}

/// Collects one handshake message from pieces of any size; holds at most [`MAX_HANDSHAKE_MESSAGE`] bytes and takes no
/// byte beyond the message, so what follows it stays with the caller.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEADER_LEN],
    head_len: usize,
    message: Vec<u8>,
    whole: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Bytes that the message in progress still lacks; reading exactly as many never reads into what follows.
    pub fn missing(&self) -> usize {
        if self.head_len < HEADER_LEN {
            HEADER_LEN - self.head_len
        } else {
            self.whole - self.message.len()
        }
    }

    /// Takes what it needs from the front of `input`; gives the message, header included, once it is whole.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        while !input.is_empty() {
            let take = self.missing().min(input.len());
            let (now, later) = input.split_at(take);
            *input = later;
            if self.head_len < HEADER_LEN {
                self.head[self.head_len..self.head_len + take].copy_from_slice(now);
                self.head_len += take;
                if self.head_len == HEADER_LEN {
                    let header = Header::parse(&self.head)?;
                    self.whole = HEADER_LEN + header.body;
                    self.message = Vec::with_capacity(self.whole);
                    self.message.extend_from_slice(&self.head);
                }
            } else {
                self.message.extend_from_slice(now);
            }
            if self.head_len == HEADER_LEN && self.message.len() == self.whole {
                self.head_len = 0;
                return Ok(Some(std::mem::take(&mut self.message)));
            }
        }
        Ok(None)
    }
}

const _: () = assert!(HEADER_LEN + M1::LEN <= MAX_HANDSHAKE_MESSAGE);
const _: () = assert!(HEADER_LEN + M2::LEN <= MAX_HANDSHAKE_MESSAGE);
const _: () = assert!(HEADER_LEN + M3::LEN <= MAX_HANDSHAKE_MESSAGE);
