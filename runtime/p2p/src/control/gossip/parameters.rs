//! The numbers that gossip runs with, read out of the very configuration that gossipsub is given.
//!
//! Ours and the library's own alike: whoever models this gossip takes them from here, and a new version of the library
//! that has others changes them there too.

use std::time::Duration;

use super::{GossipConfig, settings};

/// See the module. Names are those of the gossipsub specification where it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Peers that a mesh is filled up to (D).
    pub mesh_n: usize,
    /// Peers below which it is filled up (D_lo).
    pub mesh_n_low: usize,
    /// Peers at which it is cut down to D (D_hi).
    pub mesh_n_high: usize,
    /// Peers of a mesh that this node dialled, at least (D_out).
    pub mesh_outbound_min: usize,
    /// Peers outside the mesh that hear of recent messages, at least (D_lazy).
    pub gossip_lazy: usize,
    /// Part of the peers outside the mesh that hear of them.
    pub gossip_factor: f64,
    /// Heartbeats that a message is kept for whoever asks.
    pub history_length: usize,
    /// Heartbeats that others are told of it.
    pub history_gossip: usize,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// From the start to the first one.
    pub first_heartbeat: Duration,
    /// How long a peer that was pruned is not grafted.
    pub prune_backoff: Duration,
    /// The same after leaving a topic.
    pub unsubscribe_backoff: Duration,
    /// Heartbeats on top before this node grafts again.
    pub backoff_slack: u32,
    /// How long fanout peers are kept without a message to them.
    pub fanout_ttl: Duration,
    /// Whether one's own messages go to every peer of the topic.
    pub flood_publish: bool,
    /// How often one peer may ask for one message.
    pub gossip_retransmission: u32,
    /// How long what a peer was asked for is awaited before another one is asked.
    pub iwant_followup: Duration,
    /// IHAVEs of one peer in a heartbeat.
    pub max_ihave_messages: usize,
    /// Ids in one IHAVE or IWANT, and ids asked of one peer in a heartbeat.
    pub max_ids: usize,
    /// How long an id is remembered.
    pub seen: Duration,
    /// Messages, IHAVEs and IWANTs that wait for one peer to read.
    pub queue: usize,
    /// How long one's own message waits there.
    pub publish_wait: Duration,
    /// How long another one does.
    pub forward_wait: Duration,
    /// Largest message.
    pub max_message: usize,
    /// Size from which on peers would be told that a message is not wanted any more (IDONTWANT); over `max_message`: never.
    pub idontwant_from: usize,
}

impl Parameters {
    /// Those of a configuration; an error says what gossipsub does not take of it.
    pub fn of(config: &GossipConfig) -> Result<Parameters, String> {
        let built = settings(config)?;
        Ok(Parameters {
            mesh_n: built.mesh_n(),
            mesh_n_low: built.mesh_n_low(),
            mesh_n_high: built.mesh_n_high(),
            mesh_outbound_min: built.mesh_outbound_min(),
            gossip_lazy: built.gossip_lazy(),
            gossip_factor: built.gossip_factor(),
            history_length: built.history_length(),
            history_gossip: built.history_gossip(),
            heartbeat: built.heartbeat_interval(),
            first_heartbeat: built.heartbeat_interval() + built.heartbeat_initial_delay(),
            prune_backoff: built.prune_backoff(),
            unsubscribe_backoff: built.unsubscribe_backoff(),
            backoff_slack: built.backoff_slack(),
            fanout_ttl: built.fanout_ttl(),
            flood_publish: built.flood_publish(),
            gossip_retransmission: built.gossip_retransimission(),
            iwant_followup: built.iwant_followup_time(),
            max_ihave_messages: built.max_ihave_messages_heartbeat(),
            max_ids: built.max_control_messages_sent(),
            seen: built.duplicate_cache_time(),
            queue: built.connection_handler_queue_len(),
            publish_wait: built.publish_queue_duration(),
            forward_wait: built.forward_queue_duration(),
            max_message: config.max_message,
            idontwant_from: built.idontwant_message_size_threshold(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::gossip::{IDS, QUEUE, SEEN};

    /// What the documentation and the simulator rely on: the library's own numbers where ours say nothing. A new version of
    /// the library that changes one fails here, and the simulator's calibration has to be looked at again.
    #[test]
    fn known_numbers() {
        let found = Parameters::of(&GossipConfig::default()).unwrap();
        let expected = Parameters {
            mesh_n: 6,
            mesh_n_low: 5,
            mesh_n_high: 12,
            mesh_outbound_min: 2,
            gossip_lazy: 6,
            gossip_factor: 0.25,
            history_length: 5,
            history_gossip: 3,
            heartbeat: Duration::from_secs(1),
            first_heartbeat: Duration::from_secs(2),
            prune_backoff: Duration::from_secs(60),
            unsubscribe_backoff: Duration::from_secs(10),
            backoff_slack: 1,
            fanout_ttl: Duration::from_secs(60),
            flood_publish: true,
            gossip_retransmission: 3,
            iwant_followup: Duration::from_secs(3),
            max_ihave_messages: 10,
            max_ids: IDS,
            seen: SEEN,
            queue: QUEUE,
            publish_wait: Duration::from_secs(5),
            forward_wait: Duration::from_secs(1),
            max_message: 16 * 1024,
            idontwant_from: 26 * 1024,
        };
        assert_eq!(found, expected);
    }
}
