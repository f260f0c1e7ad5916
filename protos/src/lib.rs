//! The wire contract: the .proto files and the code generated from them, nothing else.
//!
//! The comments are in `proto/pqcnet/*.proto`. Every `bytes` field is a [`bytes::Bytes`], so decoding from a
//! `Bytes` shares its memory. Unknown fields are ignored (proto3). Nothing signs a protobuf encoding.

/// Values shared by several services.
pub mod common {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.common.v1.rs"));
    }
}

/// Frames of a typed link.
pub mod link {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.link.v1.rs"));
    }
}

/// Service EDGE.
pub mod edge {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.edge.v1.rs"));
    }
}

/// Service RELAY.
pub mod relay {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.relay.v1.rs"));
    }
}

/// Service CONTROL.
pub mod control {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.control.v1.rs"));
    }
}

/// Directives and adverts.
pub mod mesh {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.mesh.v1.rs"));
    }
}

/// The relayer's metering service, over gRPC. Its messages only: who serves it writes the service.
pub mod meter {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pqcnet.meter.v1.rs"));
    }
}
