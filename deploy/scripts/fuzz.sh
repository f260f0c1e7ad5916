#!/bin/sh
# Every decoder under libFuzzer: `fuzz.sh MINUTES [TARGET ...]`. The minutes are shared among the targets, one after
# another. What is found stands in tests/fuzz/artifacts; new inputs go to tests/fuzz/target/corpus, and the committed corpus
# is only read. Ends with 1 when anything was found.
set -eu

minutes=${1:?minutes}
shift
cd "$(dirname "$0")/../../tests/fuzz"

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 2
fi
# The product's own compiler, with the unstable flags that instrument: no nightly toolchain is needed.
export RUSTC_BOOTSTRAP=1
# Decoders are safe Rust, so panics are sought, not memory errors; SANITIZER=address looks for those too.
sanitizer=${SANITIZER:-none}
work=${CARGO_TARGET_DIR:-$PWD/target}

[ $# -gt 0 ] || set -- $(cargo fuzz list)
seconds=$((minutes * 60 / $#))
[ "$seconds" -ge 1 ] || seconds=1
echo "fuzz: $# targets, $seconds s each"
# The versions that the product is built with; cargo adds libfuzzer-sys.
cp ../../Cargo.lock Cargo.lock
cargo fuzz build --fuzz-dir . -s "$sanitizer"

found=0
for target in "$@"; do
    mkdir -p "$work/corpus/$target" "artifacts/$target"
    # 70,000 bytes: over the largest record; a second a run, 512 MiB at once.
    if ! cargo fuzz run --fuzz-dir . -s "$sanitizer" "$target" "$work/corpus/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=70000 -timeout=5 -rss_limit_mb=512 -print_final_stats=1 \
        >"$work/$target.log" 2>&1; then
        # The sources may have changed since they were built above.
        if grep -q '^Error: failed to build' "$work/$target.log"; then
            echo "fuzz: $target did not build any more: it was not run" >&2
            exit 2
        fi
        found=1
        echo "fuzz: $target FOUND something:"
        tail -n 40 "$work/$target.log"
    else
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
        echo "fuzz: $target: $runs runs, nothing found"
    fi
done
exit "$found"
