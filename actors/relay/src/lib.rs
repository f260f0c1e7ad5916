//! The relay: shard workers that admit, store, deliver, in order, and ack only what is durable.
