#!/usr/bin/env bash
# The commands that scripts rely on, end to end: their forms, outputs and exit codes.
# usage: commands_test.sh JAMBA_BINARY
set -euo pipefail
jamba=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
golden=$here/tests/goldens/odd_seq17

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# import, score: one log-probability for each token after the first, as JSON numbers.
"$jamba" import --from "$golden" --to "$dir/imported"
printf '%s\n' '{"ids": [5, 17, 88, 3, 100]}' '{"ids": [7]}' >"$dir/in.jsonl"
"$jamba" score --checkpoint "$dir/imported" --input "$dir/in.jsonl" --output "$dir/out.jsonl"
python3 - "$dir/out.jsonl" <<'PY' || fail "score"
import json, sys
lines = [json.loads(line)["logprobs"] for line in open(sys.argv[1])]
assert [len(l) for l in lines] == [4, 0], lines
assert all(-30 < x < 0 for l in lines for x in l), lines
PY
"$jamba" inspect "$dir/imported" | grep -q "weights only" || fail "inspect of a checkpoint"
"$jamba" inspect "$here/configs/models/jamba-52b.yaml" | grep -q "51.6B" || fail "inspect of a config"

# verify: exit 0 on its golden, 1 where a weight was changed; --dump writes the expected names.
"$jamba" verify "$golden" --dump "$dir/dump.safetensors" >/dev/null || fail "verify"
python3 - "$golden/expected.safetensors" "$dir/dump.safetensors" <<'PY' || fail "dump"
import json, struct, sys
def names(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    return {k for k in json.loads(data[8:8 + size]) if not k.startswith("__")}
expected, dumped = (names(p) for p in sys.argv[1:])
missing = {n for n in expected - dumped if not n.startswith(("topk_index", "mixer_out", "ff_out"))}
assert not missing, missing
PY
cp -r "$golden" "$dir/changed"
chmod -R u+w "$dir/changed"
size=$(stat -c %s "$dir/changed/model.safetensors")
printf '\x3f\x3f' | dd of="$dir/changed/model.safetensors" bs=1 seek=$((size - 3)) conv=notrunc status=none
code=0
"$jamba" verify "$dir/changed" >/dev/null || code=$?
[[ $code -eq 1 ]] || fail "verify of a changed weight ended with $code, expected 1"

# demo: trains, samples, and continues where a signal stopped it.
cd "$dir"
"$jamba" demo --run-dir "$dir/demo" --steps 3 >"$dir/demo.log"
grep -q "^next: jamba generate" "$dir/demo.log" || fail "demo"
"$jamba" generate --checkpoint "$dir/demo" --prompt "Once" --max-new-tokens 5 >"$dir/text1"
"$jamba" generate --checkpoint "$dir/demo" --prompt "Once" --max-new-tokens 5 >"$dir/text2"
cmp "$dir/text1" "$dir/text2" || fail "the same seed gave another text"
"$jamba" eval --checkpoint "$dir/demo" --data "$dir/demo/data/stories.validation.h5" --seq-len 128 \
  --max-tokens 1000 | grep -q "ppl" || fail "eval"

# TERM to the launcher: every rank saves, the job ends with 85, and the same command continues.
sed "s|RUN|$dir|g" "$here/tests/app/tiny_run.yaml" >"$dir/run.yaml"
"$here/scripts/launch" -n 2 --timeout 100 -- "$jamba" train "$dir/run.yaml" >"$dir/train.log" 2>&1 &
job=$!
for _ in $(seq 1 200); do
  [[ -s $dir/run/metrics.jsonl ]] && break
  sleep 0.1
done
kill -TERM $job
code=0
wait $job || code=$?
[[ $code -eq 85 ]] || { cat "$dir/train.log"; fail "a stopped run ended with $code, expected 85"; }
step=$(basename "$(ls -d "$dir"/run/checkpoints/step-*)")
step=$((10#${step#step-}))
"$here/scripts/launch" -n 2 --timeout 100 -- "$jamba" train "$dir/run.yaml" train.steps=$((step + 2)) >"$dir/train.log" 2>&1 ||
  { cat "$dir/train.log"; fail "continuing"; }
grep -q "resuming after step $step" "$dir/train.log" || fail "the run did not continue"
echo "all commands as expected"
