//! What every conversion between a message and its protobuf form needs.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;

/// Implements [`pqcnet_link::Wire`] through the message's protobuf form (`From<&T> for P`, `TryFrom<P> for T`). Each
/// `bound` names a repeated field, its tag, where it is known the bytes that each element has at least, and the most
/// elements it may have, checked before anything is decoded.
macro_rules! wire {
    ($ty:ty => $proto:ty $(, bound $field:literal = $tag:literal $(each $shortest:literal)? at $limit:expr)* $(,)?) => {
        impl pqcnet_link::Wire for $ty {
            fn to_wire(&self) -> bytes::Bytes {
                pqcnet_link::wire::encode(&<$proto>::from(self))
            }

            fn from_wire(bytes: bytes::Bytes) -> Result<Self, pqcnet_link::WireError> {
                $({
                    let shortest = [0usize $(, $shortest)?].into_iter().max().unwrap_or(0);
                    pqcnet_link::wire::bound_repeated(&bytes, $tag, $field, shortest, $limit)?;
                })*
                pqcnet_link::wire::decode::<$proto>(bytes)?.try_into()
            }
        }
    };
}

/// Gives a message its actor name, class, reply, service and type id.
macro_rules! message {
    ($ty:ty, $name:literal, $service:ident $type_id:expr, $class:ident => $reply:ty) => {
        impl pqcnet_actor::Message for $ty {
            type Reply = $reply;
            const NAME: &'static str = $name;
            const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::$class;

            fn digest(&self, into: &mut pqcnet_actor::Digest) {
                std::hash::Hash::hash(self, into);
            }
        }

        impl pqcnet_link::Addressed for $ty {
            const SERVICE: pqcnet_link::ServiceId = pqcnet_link::ServiceId::$service;
            const TYPE: u32 = $type_id as u32;
        }
    };
}

/// Both directions, and [`wire!`], for a message whose fields are the protobuf form's, each a [`Field`](crate::field::Field). A part that is a
/// struct here, and whose fields stand among the others there, follows `with`. `check` looks at the whole of what came in; `bound` is as in
/// [`wire!`].
macro_rules! fields {
    ($ty:ident => $proto:ty { $($field:ident),* $(,)? }
        $(, with $part:ident: $part_ty:ident { $($inner:ident),* })?
        $(, check $check:path)?
        $(, bound $($bound:tt)*)?
    ) => {
        impl From<&$ty> for $proto {
            fn from(value: &$ty) -> Self {
                Self {
                    $($field: $crate::field::Field::to_field(&value.$field),)*
                    $($($inner: $crate::field::Field::to_field(&value.$part.$inner),)*)?
                }
            }
        }

        impl TryFrom<$proto> for $ty {
            type Error = pqcnet_link::WireError;

            fn try_from(value: $proto) -> Result<Self, Self::Error> {
                let value = Self {
                    $($field: $crate::field::Field::from_field(stringify!($field), value.$field)?,)*
                    $($part: $part_ty {
                        $($inner: $crate::field::Field::from_field(stringify!($inner), value.$inner)?,)*
                    },)?
                };
                $($check(&value)?;)?
                Ok(value)
            }
        }

        wire!($ty => $proto $(, bound $($bound)*)?);
    };
}

pub(crate) use {fields, message, wire};

pub(crate) fn invalid(field: &'static str, problem: &'static str) -> WireError {
    WireError::Invalid { field, problem }
}

pub(crate) fn node_bytes(id: &NodeId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(crate) fn node_id(field: &'static str, bytes: &Bytes) -> Result<NodeId, WireError> {
    Ok(NodeId::from_bytes(array(field, bytes)?))
}

pub(crate) fn array<const N: usize>(
    field: &'static str,
    bytes: &Bytes,
) -> Result<[u8; N], WireError> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| invalid(field, "wrong length"))
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| invalid(field, "missing"))
}

/// The longest prefix of `text` of at most `max` bytes, one line, fit to be shown.
pub(crate) fn clip(text: &str, max: usize) -> String {
    pqcnet_link::printable(text, max)
}

/// The same of several lines.
pub(crate) fn clip_lines(text: &str, max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(max)];
    let lines = kept.split('\n').map(|line| clip(line, max));
    lines.collect::<Vec<_>>().join("\n")
}
