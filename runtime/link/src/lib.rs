//! Typed links, pure: frames, credits, streams' state, the Wire and Service traits.
