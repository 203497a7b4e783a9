#!/usr/bin/env bash
# A run on emulated devices, two ranks, beside the same on the CPU; each goes on from the other's
# checkpoint.   usage: emulated_run_test.sh JAMBA JAMBA_EMULATED
set -euo pipefail
jamba=$1
emulated=$2
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export JAMBA_EMULATED_DEVICES=2

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

"$jamba" demo --run-dir "$dir/demo" --steps 1 >/dev/null
sed "s|RUN|$dir|g" "$here/tests/app/tiny_run.yaml" >"$dir/run.yaml"
tiny=(parallel.tp=2 eval.max_tokens=256)
train() {
  local program=$1
  shift
  "$here/scripts/launch" -n 2 --timeout 200 -- "$program" train "$dir/run.yaml" "${tiny[@]}" "$@" >"$dir/log" 2>&1 ||
    { cat "$dir/log"; fail "$program train $*"; }
}

train "$jamba" run_dir="$dir/cpu" train.steps=3
grep -q "device  CPU; no CUDA: this program is built without CUDA" "$dir/log" || fail "what the CPU says"
train "$emulated" run_dir="$dir/cuda" train.device=cuda train.steps=3 log.every=2
grep -q "device  CUDA: emulated" "$dir/log" || fail "what the device says"

# The other backend goes on.
train "$emulated" run_dir="$dir/cpu" train.steps=5
grep -q "resuming after step 3" "$dir/log" || fail "the emulated program did not resume"
train "$jamba" run_dir="$dir/cuda" train.steps=5
grep -q "resuming after step 3" "$dir/log" || fail "the CPU did not resume"

python3 - "$dir/cpu/metrics.jsonl" "$dir/cuda/metrics.jsonl" <<'PY' || fail "losses differ"
import json, sys
def losses(path):
    steps = [json.loads(line) for line in open(path)]
    return [(s["loss"], s["grad_norm"]) for s in steps if s["kind"] == "step"]
cpu, cuda = (losses(p) for p in sys.argv[1:])
assert len(cpu) == len(cuda) == 5, (cpu, cuda)
device = [s for s in map(json.loads, open(sys.argv[2])) if s["kind"] == "step"][:3]
assert 1e5 < device[0]["peak_memory_bytes"] < 3e7, device[0]  # of the device, not of the process
# Parts are timed on the device, in the steps that are shown.
assert ["seconds" in s for s in device] == [False, True, True], device
assert 0.01 * device[1]["step_seconds"] < device[1]["seconds"]["scan"] < device[1]["step_seconds"], device[1]
for a, b in zip(cpu, cuda):
    assert all(abs(x - y) <= 1e-4 * abs(x) for x, y in zip(a, b)), (a, b)
PY

# More ranks than devices: one line, on all ranks.
code=0
JAMBA_EMULATED_DEVICES=1 "$here/scripts/launch" -n 2 --timeout 100 -- "$emulated" train "$dir/run.yaml" \
  "${tiny[@]}" run_dir="$dir/other" train.device=cuda >"$dir/log" 2>&1 || code=$?
[[ $code -eq 2 ]] || fail "too few devices ended with $code, expected 2"
grep -q "2 ranks on this host, but 1 CUDA devices" "$dir/log" || { cat "$dir/log"; fail "too few devices"; }

# Commands on one rank.
"$emulated" generate --device cuda --checkpoint "$dir/cuda" --prompt "Once" --max-new-tokens 5 --temperature 0 >"$dir/a"
"$jamba" generate --checkpoint "$dir/cuda" --prompt "Once" --max-new-tokens 5 --temperature 0 >"$dir/b"
cmp "$dir/a" "$dir/b" || fail "another text"
doctor=$("$emulated" doctor)
[[ $doctor == *"device 1: emulated"* ]] || fail "doctor: $doctor"
doctor=$("$jamba" doctor)
[[ $doctor == *"built without CUDA"* ]] || fail "doctor without CUDA: $doctor"
