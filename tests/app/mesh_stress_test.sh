#!/usr/bin/env bash
# Twenty steps of real ranks on meshes and models that are hard for a trainer: each run ends by
# itself, learns something, and leaves no process behind. Then what ends a job that cannot go on.
# usage: mesh_stress_test.sh JAMBA_BINARY
set -euo pipefail
jamba=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_WAIT_POLICY=passive

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# --- Material: documents of very uneven length ----------------------------------------------------
python3 - "$dir/text.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], "w") as out:
    for i in range(120):
        words = " ".join(f"the {n} mills of river {n * i % 17}" for n in range(1 + i * i % 43))
        out.write(json.dumps({"text": f"Story {i}. {words}."}) + "\n")
PY
"$jamba" data prepare --tokenizer bytes --input "$dir/text.jsonl" --output-dir "$dir/tokens" \
  --validation-fraction 0.1 >/dev/null
store=$(ls "$dir"/tokens/*.train.h5)
cat >"$dir/run.yaml" <<YAML
model:
  vocab_size: 259
  hidden_size: 32
  intermediate_size: 48
  num_hidden_layers: 8
  num_attention_heads: 4
  num_key_value_heads: 2
  num_experts: 4
  router_aux_loss_coef: 0.01
  init: mamba
data:
  sources: [{name: text, train: $store}]
  tokenizer: bytes
  seq_len: 64
train: {steps: 20, micro_batch_size: 1, global_batch_size: 8, peak_gflops: 1}
optimizer: {lr: 0.003, warmup_steps: 2}
parallel: {check_collectives: true, timeout_seconds: 60}
log: {tensorboard: false}
YAML

# run NAME RANKS SETTINGS...
run() {
  local name=$1 ranks=$2
  shift 2
  "$here/scripts/launch" -n "$ranks" --timeout 120 -- "$jamba" train "$dir/run.yaml" \
    "run_dir=$dir/$name" "$@" >"$dir/$name.log" 2>&1 || {
    tail -20 "$dir/$name.log" >&2
    fail "$name: $*"
  }
  python3 - "$dir/$name/metrics.jsonl" <<'PY' || fail "$name did not learn"
import json, math, sys
losses = [r["lm_loss"] for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"]
assert len(losses) == 20 and all(math.isfinite(x) for x in losses), losses
assert sum(losses[-3:]) / 3 < losses[0] - 0.5, losses
PY
}

run mamba-stage 4 parallel.pp=4 "parallel.pp_layers=1 1 5 1"
run dense-stage 2 parallel.pp=2 "model.layer_pattern=M M M M A Me M Me" "parallel.pp_layers=4 4"
run documents 4 parallel.cp=4
run documents-heads 8 parallel.cp=8
run collapse 4 parallel.ep=4 model.num_experts_per_tok=1 model.router_jitter=0.5 \
  model.aux_loss=none
run capacity 4 parallel.ep=2 model.expert_capacity_factor=0.5
run balanced 4 parallel.ep=4 model.force_balanced_routing=true
run interleaved 4 parallel.pp=2 parallel.pp_chunks=2 parallel.zero=1
run recompute 8 parallel.tp=2 parallel.cp=2 parallel.ep=2 train.recompute=block
run everything 8 parallel.tp=2 parallel.pp=2 parallel.cp=2 parallel.ep=2 parallel.zero=3
run bfloat16 8 parallel.tp=2 parallel.pp=2 parallel.ep=2 parallel.zero=2 train.dtype=bfloat16
run tree 4 parallel.deterministic=tree parallel.pp=2
run tied 4 parallel.pp=2 parallel.zero=1 model.tie_word_embeddings=true

grep -q '^traffic rank 0 sends in a step: .*tp ' "$dir/everything.log" || fail "no line about traffic"
grep -qE '^tp +2 ' "$dir/everything.log" || fail "no table of the mesh"
python3 - "$dir/capacity/metrics.jsonl" "$dir/balanced/metrics.jsonl" <<'PY' || fail "expert figures"
import json, sys
first = [json.loads(next(open(path))) for path in sys.argv[1:]]
assert first[0]["dropped_rows"] > 0 and first[1]["dropped_rows"] == 0
assert first[1]["expert_load_max"] < 1.05 and "ep" in first[1]["sent_bytes"]
PY

# --- A trace of two steps, with lanes for both kinds of work --------------------------------------
"$here/scripts/launch" -n 2 --timeout 60 -- "$jamba" train "$dir/run.yaml" "run_dir=$dir/traced" \
  parallel.tp=2 train.steps=5 --trace "$dir/trace.json" >/dev/null
python3 - "$dir/trace.json" <<'PY' || fail "trace"
import json, sys
events = json.load(open(sys.argv[1]))
lanes = {e["args"]["name"] for e in events if e["ph"] == "M"}
assert {"compute", "comm tp"} <= lanes, lanes
assert {e["pid"] for e in events} == {0, 1}
names = {e["name"].split(" ")[0] for e in events if e["ph"] == "X"}
assert {"matmul", "scan", "reduce_scatter", "all_gather", "wait"} <= names, names
whole = {e["name"] for e in events if e["ph"] == "X"}
assert {"embedding forward", "head backward", "layer 0 mamba+dense forward", "layer 0 mamba+dense backward"} <= whole, whole
PY

# --- A rank that stops in the middle: the others end the job and name it --------------------------
begin=$(date +%s)
code=0
"$here/scripts/launch" -n 4 --timeout 60 -- bash -c '
  "$@" & child=$!
  if [[ $OMPI_COMM_WORLD_RANK == 2 ]]; then sleep 4; kill -STOP $child; fi
  wait $child' _ "$jamba" train "$dir/run.yaml" "run_dir=$dir/stopped" parallel.tp=2 \
  train.steps=100000 parallel.timeout_seconds=3 parallel.check_collectives=false \
  >"$dir/stopped.log" 2>&1 || code=$?
[[ $code -eq 75 ]] || fail "a stopped rank: ended with $code, expected 75: $(tail -5 "$dir/stopped.log")"
(($(date +%s) - begin <= 14)) || fail "a stopped rank held the job for long"
grep -qE 'waited 3\.[0-9] s; not there: .*rank' "$dir/stopped.log" ||
  fail "a stopped rank is not named: $(tail -5 "$dir/stopped.log")"

# --- Nothing is left -------------------------------------------------------------------------------
sleep 1
if pgrep -f "$dir/run.yaml" >/dev/null; then fail "processes are left: $(pgrep -af "$dir/run.yaml")"; fi
echo "all runs ended as they should"
