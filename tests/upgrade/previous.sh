#!/bin/sh
# Builds the node binaries of the release before this one, from this repository's own history, and prints the folder
# they are in. The commit is pinned in tests/upgrade/previous; they lie under the target folder and are built once.
set -eu
cd "$(dirname "$0")/../.."
commit=$(grep -v '^#' tests/upgrade/previous)
place=${CARGO_TARGET_DIR:-target}/previous/$commit
if [ ! -f "$place/built" ]; then
    if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
        echo "commit $commit is not in this clone; fetch the whole history: git fetch --unshallow" >&2
        exit 1
    fi
    rm -rf "$place/src"
    mkdir -p "$place/src" "$place/bin"
    git archive "$commit" | tar -x -C "$place/src"
    CARGO_TARGET_DIR="$(cd "$place" && pwd)/target" ${CARGO:-cargo} build --quiet --locked \
        --manifest-path "$place/src/Cargo.toml" -p pqcnet-node --bins >&2
    for binary in pqcnet pqcnet-relayer pqcnet-sentry; do
        cp "$place/target/debug/$binary" "$place/bin/"
    done
    rm -rf "$place/src" "$place/target"
    touch "$place/built"
fi
cd "$place/bin" && pwd
