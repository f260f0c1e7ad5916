//! RocksDB behind one trait: column families, one synced writer thread a store, snapshot reads.
