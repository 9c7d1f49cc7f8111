#!/usr/bin/env bash
# Every way that GPU kernels multiply, on this machine's GPU, against f64: errors by way and type, and whether each row of x has the bits
# that it has alone. What the processor's instruction sets do is `cargo test -p planish-cpu --test conformance -- --nocapture`.
#
#     scripts/gpu/conformance.sh [cuda|metal|emulated] [whole|every|small]
#
# `whole` is the sweep that the tests do by themselves on a GPU, `every` has all of 1 to 33 rows of x, `small` is what CI emulates.
set -euo pipefail
cd "$(dirname "$0")/../.."

export PLANISH_TEST_DEVICE=${1:-cuda} PLANISH_TEST_SWEEP=${2:-every}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
cargo test -p planish-kernels --test kernels products -- --nocapture >"$output" 2>&1 || code=$?
echo "way to multiply           inputs      error  beyond rounding   products"
# One line for each width that a test swept: the largest error of all, and the sum of products.
awk '$5 == "rounding" {
    key = $1 " " $2
    if (!(key in error)) keys[++count] = key
    if ($3 > error[key]) error[key] = $3
    if ($6 + 0 > beyond[key]) beyond[key] = $6 + 0
    products[key] += $7
} END {
    for (i = 1; i <= count; i++) {
        split(keys[i], part, " ")
        printf "%-25s %-6s %10.2e %16.2e %10d\n", part[1], part[2], error[keys[i]], beyond[keys[i]], products[keys[i]]
    }
}' "$output" | sort
[ "$code" = 0 ] || { grep -v " beyond rounding " "$output"; echo "The kernels do not conform." >&2; }
exit "$code"
