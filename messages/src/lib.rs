//! Typed messages, services and their ids, access rules' vocabulary, ShardMap, wire conversions.
