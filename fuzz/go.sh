#!/usr/bin/env bash
# Runs all targets side by side, on a machine that has nothing but bash: `go.sh SECONDS OUTDIR` beside `plain`, `asan` (programs of
# `run`, stripped) and `seeds/`. Writes OUTDIR/counts.txt (executions and crashes of each target) and OUTDIR/crashes.tar.gz.
set -u
seconds=${1:?seconds} out=${2:?a folder for what is found}
cd "$(dirname "$0")"
mkdir -p "$out"
work=$(mktemp -d)
mkdir "$work/crashes" "$work/corpus" "$work/logs"
end=$((SECONDS + seconds))
export RAYON_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16

# One process of one target, begun anew after each crash; appends `target program executions crashes`.
slot() {
    local target=$1 program=$2 log=$work/logs/$1-$2-$3 executions=0 crashes=0 left
    while left=$((end - SECONDS)) && [ "$left" -gt 2 ] && [ "$crashes" -lt 40 ]; do
        PLANISH_FUZZ=$target "./$program" -max_total_time="$left" -timeout=5 -rss_limit_mb=1024 -max_len=16384 \
            -print_final_stats=1 -seed=$((RANDOM * 32768 + RANDOM)) -artifact_prefix="$work/crashes/$target-" \
            "$work/corpus/$target" "seeds/$target" >"$log" 2>&1 || {
            crashes=$((crashes + 1))
            { echo "== $target $program"; grep -v '^#' "$log" | tail -n 60; } >>"$work/crashes/messages.txt"
        }
        executions=$((executions + $(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1 | grep . || echo 0)))
    done
    echo "$target $program $executions $crashes" >>"$work/counts"
}

# How many processes each target gets of the quick program for every 16 cores, and one for every second target of the slow one.
weights="generation 1 gguf 2 hub 1 imatrix 1 index 1 mlx 1 model 3 model_gguf 1 mxfp4 1 requests 1 safetensors 2 template 2 tokenizer 2"
times=$((($(nproc) + 8) / 16)) number=0
[ "$times" -gt 0 ] || times=1
set -- $weights
while [ $# -gt 0 ]; do
    target=$1 count=$(($2 * times))
    shift 2
    mkdir -p "$work/corpus/$target"
    for _ in $(seq "$count"); do
        number=$((number + 1))
        slot "$target" plain "$number" &
    done
    if [ -x asan ]; then
        number=$((number + 1))
        slot "$target" asan "$number" &
    fi
done
wait

sort "$work/counts" | awk '
    { executions[$1 " " $2] += $3; crashes[$1 " " $2] += $4; all += $3; failed += $4 }
    END { for (name in executions) print name, executions[name], crashes[name] | "sort"; close("sort"); print "all", all, failed }
' | tee "$out/counts.txt"
tar -C "$work" -czf "$out/crashes.tar.gz" crashes
rm -rf "$work"
