//! How a typed value becomes bytes and back.

use bytes::{Bytes, BytesMut};
use pqcnet_protos::link::v1 as pb;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::ids::ServiceId;

/// A value with a fixed encoding. Decoding shares the input's memory and allocates within the type's own limits.
pub trait Wire: Sized + Send + 'static {
    /// The value's bytes.
    fn to_wire(&self) -> Bytes;

    /// The value these bytes stand for.
    ///
    /// # Errors
    /// The bytes are the peer's; whatever is wrong with them is the peer's fault.
    fn from_wire(bytes: Bytes) -> Result<Self, WireError>;
}

/// A message that a link can address: its service and its type id there, fixed in the service's `.proto`.
pub trait Addressed: Wire {
    /// The service it belongs to.
    const SERVICE: ServiceId;
    /// Its number within the service.
    const TYPE: u32;
}

/// What is wrong with bytes a peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not the encoding of any value of this type.
    #[error("malformed encoding")]
    Malformed,
    /// A field holds what it must not.
    #[error("field `{field}`: {problem}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A list is longer than its limit.
    #[error("list `{field}` is longer than {limit}")]
    TooMany {
        /// The field's name.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Bytes that should have been empty.
    #[error("trailing bytes")]
    Trailing,
}

impl Wire for () {
    fn to_wire(&self) -> Bytes {
        Bytes::new()
    }

    fn from_wire(bytes: Bytes) -> Result<(), WireError> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

/// A `Result` travels as `link.v1.Outcome`.
impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn to_wire(&self) -> Bytes {
        use pb::outcome::Kind;
        let kind = match self {
            Ok(value) => Kind::Ok(value.to_wire()),
            Err(refusal) => Kind::Refused(refusal.to_wire()),
        };
        encode(&pb::Outcome { kind: Some(kind) })
    }

    fn from_wire(bytes: Bytes) -> Result<Self, WireError> {
        use pb::outcome::Kind;
        match decode::<pb::Outcome>(bytes)?.kind {
            Some(Kind::Ok(bytes)) => Ok(Ok(T::from_wire(bytes)?)),
            Some(Kind::Refused(bytes)) => Ok(Err(E::from_wire(bytes)?)),
            None => Err(WireError::Invalid {
                field: "outcome",
                problem: "neither ok nor refused",
            }),
        }
    }
}

/// Encodes a protobuf message.
pub fn encode<P: prost::Message>(message: &P) -> Bytes {
    let mut out = BytesMut::with_capacity(message.encoded_len());
    message
        .encode(&mut out)
        .expect("a BytesMut grows as far as the message needs");
    out.freeze()
}

/// Decodes a protobuf message, sharing the memory of `bytes`. Unknown fields are ignored.
///
/// # Errors
/// [`WireError::Malformed`] if the bytes are not its encoding.
pub fn decode<P: prost::Message + Default>(bytes: Bytes) -> Result<P, WireError> {
    P::decode(bytes).map_err(|_| WireError::Malformed)
}

/// Refuses an encoding whose repeated field `tag` has more than `limit` elements, or one of fewer bytes than the shortest
/// honest one, before anything is allocated for it: an empty element costs two bytes on the wire but a whole struct in
/// memory.
///
/// # Errors
/// [`WireError::TooMany`]; [`WireError::Invalid`] for a short element; [`WireError::Malformed`] if the bytes are no
/// protobuf encoding.
pub fn bound_repeated(
    bytes: &Bytes,
    tag: u32,
    field: &'static str,
    shortest: usize,
    limit: usize,
) -> Result<(), WireError> {
    let mut rest: &[u8] = bytes;
    let mut seen = 0;
    while !rest.is_empty() {
        let (found, wire_type) = decode_key(&mut rest).map_err(|_| WireError::Malformed)?;
        if found == tag {
            seen += 1;
            if seen > limit {
                return Err(WireError::TooMany { field, limit });
            }
        }
        let before = rest.len();
        skip(wire_type, found, &mut rest)?;
        // The length in front of the element counts too, so this lets one pass that is a byte too short, never an honest one.
        if found == tag && before - rest.len() < shortest {
            let problem = "an element too short to be one";
            return Err(WireError::Invalid { field, problem });
        }
    }
    Ok(())
}

fn skip(wire_type: WireType, tag: u32, rest: &mut &[u8]) -> Result<(), WireError> {
    if wire_type == WireType::LengthDelimited {
        let len = decode_varint(rest).map_err(|_| WireError::Malformed)?;
        let len = usize::try_from(len).map_err(|_| WireError::Malformed)?;
        *rest = rest.get(len..).ok_or(WireError::Malformed)?;
        return Ok(());
    }
    skip_field(wire_type, tag, rest, DecodeContext::default()).map_err(|_| WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Blob(Bytes);

    impl Wire for Blob {
        fn to_wire(&self) -> Bytes {
            self.0.clone()
        }

        fn from_wire(bytes: Bytes) -> Result<Self, WireError> {
            Ok(Blob(bytes))
        }
    }

    /// The envelope of a `Result` is pinned, and a decoded payload is a slice of the input, not a copy.
    #[test]
    fn results_share_memory_and_bytes_are_pinned() {
        let ok: Result<Blob, ()> = Ok(Blob(Bytes::from_static(b"abc")));
        let bytes = ok.to_wire();
        assert_eq!(hex::encode(&bytes), "0a03616263");
        let range = bytes.as_ptr_range();
        let Ok(Blob(back)) = Result::<Blob, ()>::from_wire(bytes).unwrap() else {
            panic!("refused")
        };
        assert!(range.contains(&back.as_ptr()), "payload was copied");
        let refused: Result<(), Blob> = Err(Blob(Bytes::from_static(b"x")));
        assert_eq!(hex::encode(refused.to_wire()), "120178");
    }

    /// Each way a reply can be wrong has its own error.
    #[test]
    fn every_error() {
        assert_eq!(
            <()>::from_wire(Bytes::from_static(b"x")),
            Err(WireError::Trailing)
        );
        assert_eq!(
            Result::<(), ()>::from_wire(Bytes::new()),
            Err(WireError::Invalid {
                field: "outcome",
                problem: "neither ok nor refused"
            })
        );
        assert_eq!(
            Result::<(), ()>::from_wire(Bytes::from_static(&[0x0a, 9])),
            Err(WireError::Malformed)
        );
        let three = Bytes::from_static(&[0x0a, 0, 0x0a, 0, 0x12, 0, 0x0a, 0]);
        assert_eq!(bound_repeated(&three, 1, "list", 0, 3), Ok(()));
        assert_eq!(
            bound_repeated(&three, 1, "list", 2, 3),
            Err(WireError::Invalid {
                field: "list",
                problem: "an element too short to be one"
            })
        );
        assert_eq!(
            bound_repeated(&three, 1, "list", 0, 2),
            Err(WireError::TooMany {
                field: "list",
                limit: 2
            })
        );
    }

    proptest! {
        /// Random bytes are refused or accepted, never a panic.
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tag in 1u32..20) {
            let bytes = Bytes::from(bytes);
            let scanned = bound_repeated(&bytes, tag, "list", 0, 3);
            let impossible = matches!(scanned, Err(WireError::Invalid { .. } | WireError::Trailing));
            prop_assert!(!impossible);
            if let Ok(outcome) = Result::<Blob, Blob>::from_wire(bytes) {
                prop_assert_eq!(Result::<Blob, Blob>::from_wire(outcome.to_wire()), Ok(outcome));
            }
        }
    }
}
