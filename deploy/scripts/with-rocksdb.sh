#!/bin/sh
# Runs a command that builds: Debian's RocksDB where it is installed; elsewhere the crate compiles its bundled source, for half an hour.
#
#   with-rocksdb.sh COMMAND...
#
# It looks when it runs: in a Makefile's own variables a first run would still see what was there before it installed anything.
set -eu
for library in /usr/lib/*/librocksdb.so; do
    if [ -e "$library" ] && [ -e /usr/include/rocksdb/c.h ]; then
        export ROCKSDB_LIB_DIR="${ROCKSDB_LIB_DIR:-${library%/*}}"
        export ROCKSDB_INCLUDE_DIR="${ROCKSDB_INCLUDE_DIR:-/usr/include}"
    fi
done
exec "$@"
