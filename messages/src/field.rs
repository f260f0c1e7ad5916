//! How the fields of messages stand in their protobuf forms: each type one way, whatever message it is in.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;

use crate::channel::{Channel, ChannelName};
use crate::codec::{node_bytes, node_id, required};
use crate::flow::PauseCause;
use crate::grant::Grant;
use crate::group::{GroupName, MemberId};
use crate::receipt::Series;
use crate::record::{Record, records_from_proto, records_to_proto};
use crate::refusal::Refusal;

/// A field that stands in a protobuf form as a `P`. `name` is what an error calls it.
pub(crate) trait Field<P>: Sized {
    fn to_field(&self) -> P;
    fn from_field(name: &'static str, field: P) -> Result<Self, WireError>;
}

/// As it is.
macro_rules! plain {
    ($($ty:ty),*) => {
        $(impl Field<$ty> for $ty {
            fn to_field(&self) -> $ty {
                self.clone()
            }

            fn from_field(_: &'static str, field: $ty) -> Result<Self, WireError> {
                Ok(field)
            }
        })*
    };
}

/// As a message of its own, which has to be there.
macro_rules! nested {
    ($($ty:ident),*) => {
        $(impl Field<Option<pb::$ty>> for $ty {
            fn to_field(&self) -> Option<pb::$ty> {
                Some(self.into())
            }

            fn from_field(name: &'static str, field: Option<pb::$ty>) -> Result<Self, WireError> {
                required(name, field)?.try_into()
            }
        })*
    };
}

/// As a text or as bytes, which the type itself checks.
macro_rules! checked {
    ($($ty:ident as $proto:ty, $value:ident => $to:expr);* $(;)?) => {
        $(impl Field<$proto> for $ty {
            fn to_field(&self) -> $proto {
                let $value = self;
                $to
            }

            fn from_field(_: &'static str, field: $proto) -> Result<Self, WireError> {
                $ty::from_proto(&field)
            }
        })*
    };
}

plain!(bool, u32, u64, Vec<Bytes>);
nested!(Channel, Grant, Refusal);
checked! {
    ChannelName as String, name => name.as_str().to_owned();
    GroupName as String, name => name.as_str().to_owned();
    MemberId as Bytes, id => id.to_proto();
    Series as Bytes, series => series.to_proto();
}

/// 0 is none.
impl Field<u64> for Option<u64> {
    fn to_field(&self) -> u64 {
        self.unwrap_or(0)
    }

    fn from_field(_: &'static str, field: u64) -> Result<Self, WireError> {
        Ok(Some(field).filter(|number| *number > 0))
    }
}

impl Field<u32> for Option<PauseCause> {
    fn to_field(&self) -> u32 {
        PauseCause::to_proto(*self)
    }

    fn from_field(_: &'static str, field: u32) -> Result<Self, WireError> {
        Ok(PauseCause::from_proto(field))
    }
}

impl Field<Bytes> for NodeId {
    fn to_field(&self) -> Bytes {
        node_bytes(self)
    }

    fn from_field(name: &'static str, field: Bytes) -> Result<Self, WireError> {
        node_id(name, &field)
    }
}

impl Field<Vec<Bytes>> for Vec<NodeId> {
    fn to_field(&self) -> Vec<Bytes> {
        self.iter().map(node_bytes).collect()
    }

    fn from_field(name: &'static str, field: Vec<Bytes>) -> Result<Self, WireError> {
        let each = name.strip_suffix('s').unwrap_or(name);
        field.iter().map(|id| node_id(each, id)).collect()
    }
}

impl Field<Vec<pb::Record>> for Vec<Record> {
    fn to_field(&self) -> Vec<pb::Record> {
        records_to_proto(self)
    }

    fn from_field(_: &'static str, field: Vec<pb::Record>) -> Result<Self, WireError> {
        records_from_proto(field)
    }
}
