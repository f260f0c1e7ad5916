//! The shard log: append, read from an offset, trim. Embedded on RocksDB.
