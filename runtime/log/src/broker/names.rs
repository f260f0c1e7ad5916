//! What a shard's stream is called at the broker.
//!
//! A relayer that had a shard from the first writes `PREFIX.shard-N`, as every release did. One to which a shard came writes
//! `PREFIX.shard-N.OWNER`: two relayers on one broker then never have one stream, whoever takes a copy of what when, and one with a
//! new disk finds its own again.

use std::collections::BTreeSet;

use super::record::stream_name;
use super::transport::BrokerSettings;
use crate::ShardNo;

/// Whose streams a log's are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Ends the names of streams of shards that came from elsewhere; nobody else's.
    pub owner: String,
    /// Shards that came from nowhere: this log's since there is the network.
    pub firsts: BTreeSet<ShardNo>,
}

/// Which of its two names a shard's stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Named {
    /// `PREFIX.shard-N`.
    #[default]
    Plain,
    /// `PREFIX.shard-N.OWNER`.
    Own,
}

impl BrokerSettings {
    /// The stream that a log makes for a shard of which its store has nothing.
    pub fn stream(&self, shard: ShardNo) -> String {
        self.stream_as(shard, self.named(shard))
    }

    pub(crate) fn named(&self, shard: ShardNo) -> Named {
        match &self.naming {
            Some(naming) if !naming.firsts.contains(&shard) => Named::Own,
            Some(_) | None => Named::Plain,
        }
    }

    pub(crate) fn stream_as(&self, shard: ShardNo, named: Named) -> String {
        let plain = stream_name(&self.prefix, shard);
        match (named, &self.naming) {
            (Named::Own, Some(naming)) => format!("{plain}.{}", naming.owner),
            (Named::Own | Named::Plain, _) => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Names are at brokers: pinned. Without word of whose the shards are all have the name that they had before there was another.
    #[test]
    fn names_are_pinned() {
        let mut settings = BrokerSettings::new("net");
        assert_eq!(settings.stream(ShardNo(3)), "net.shard-3");
        settings.naming = Some(Naming {
            owner: "ab12".to_owned(),
            firsts: BTreeSet::from([ShardNo(3)]),
        });
        assert_eq!(settings.stream(ShardNo(3)), "net.shard-3");
        assert_eq!(settings.stream(ShardNo(4)), "net.shard-4.ab12");
        assert_eq!(settings.stream_as(ShardNo(4), Named::Plain), "net.shard-4");
    }
}
