#!/usr/bin/env bash
# jamba train on meshes of processes: stopped and continued, on another mesh too; ranks that fail.
# usage: mesh_run_test.sh JAMBA_BINARY
set -uo pipefail
# shellcheck source=tests/app/expect.sh
source "$(dirname "$0")/expect.sh"
make_tokens
make_run_config

# train CODE PATTERN RANKS RUN SETTING...
train() {
  local code=$1 pattern=$2 ranks=$3 run=$4
  shift 4
  expect "$code" "$pattern" "$launch" -n "$ranks" --timeout 50 -- "$jamba" train "$dir/run.yaml" \
    "run_dir=$dir/$run" log.tensorboard=false "$@"
}

# fingerprint RUN: losses of its steps, and the hashes of its newest checkpoint's tensors.
fingerprint() {
  python3 - "$dir/$1" <<'PY'
import glob, json, sys
for line in map(json.loads, open(sys.argv[1] + '/metrics.jsonl')):
    if line['kind'] == 'step':
        print(line['step'], line['lm_loss'], line['grad_norm'])
newest = sorted(glob.glob(sys.argv[1] + '/checkpoints/step-*'))[-1]
slices = json.load(open(newest + '/MANIFEST.json'))['checkpoint']['slices']
assert any(s['name'].startswith('adam_v/') for s in slices)
for s in slices:
    print(s['name'], s['offset'], s['extents'], s['xxh3_128'])
PY
}

# --- Ten and ten steps are twenty -------------------------------------------------------------------
resumes() {
  local ranks=$1 run=resumed$cases
  shift
  train 0 'finished 20 steps' "$ranks" "$run" checkpoint.every=10 "$@"
  fingerprint "$run" >"$dir/whole" || fail "$*: no fingerprint"
  rm -r "$dir/$run/checkpoints/step-00000020"
  train 0 'resuming after step 10' "$ranks" "$run" checkpoint.every=10 "$@"
  fingerprint "$run" >"$dir/halves" || fail "$*: no fingerprint"
  diff "$dir/whole" "$dir/halves" >"$dir/out" || fail "$*: 10 + 10 steps differ from 20"
}
resumes 4 parallel.tp=2 parallel.pp=2
resumes 2 parallel.zero=3
resumes 2 parallel.cp=2 parallel.ep=2
resumes 2 parallel.zero=2 train.dtype=bfloat16

# --- A checkpoint of one mesh on another --------------------------------------------------------------
train 0 'finished 3 steps' 4 moved train.steps=3 parallel.tp=2 parallel.pp=2
train 0 'resuming after step 3' 1 moved train.steps=5
train 0 'resuming after step 5' 4 moved train.steps=8 parallel.zero=3 parallel.ep=2
train 0 'resuming after step 8' 8 moved train.steps=10 parallel.tp=2 parallel.cp=2 parallel.pp=2

# start RANKS RUN SETTING...: a run without end in the background, past its first steps; its pid is
# $job.
start() {
  local ranks=$1 run=$2
  shift 2
  "$launch" -n "$ranks" --timeout 50 -- "$jamba" train "$dir/run.yaml" "run_dir=$dir/$run" \
    train.steps=100000 "$@" >"$dir/out" 2>&1 &
  job=$!
  for _ in $(seq 200); do
    [[ $(grep -c step "$dir/$run/metrics.jsonl" 2>/dev/null) -gt 2 ]] && return
    sleep 0.1
  done
  fail "$run: did not start"
}

# ends CODE PATTERN NAME: the job, by itself.
ends() {
  local got=0
  cases=$((cases + 1))
  wait $job || got=$?
  if [[ $got -ne $1 ]] || ! grep -qE -- "$2" "$dir/out"; then
    fail "$3: expected exit $1 and /$2/, got exit $got and:"
  fi
  expect_nothing_left "$3"
}

# --- Stopped from outside: every rank saves -------------------------------------------------------------
start 4 stopped parallel.tp=2 parallel.pp=2
kill -USR1 $job
ends 85 'stopped after step [0-9]+; the same command continues' 'USR1'
step=$(basename "$dir"/stopped/checkpoints/step-*)
step=$((10#${step#step-}))
train 0 "resuming after step $step" 4 stopped train.steps=$((step + 1)) parallel.tp=2 parallel.pp=2

# --- A rank that stops in a step ---------------------------------------------------------------------------
# pid_of_rank RANK: of the job under $TMPDIR.
pid_of_rank() {
  local environment
  for environment in /proc/[0-9]*/environ; do
    grep -qz "^TMPDIR=$TMPDIR/launch" "$environment" 2>/dev/null &&
      grep -qzx "OMPI_COMM_WORLD_RANK=$1" "$environment" && echo "${environment//[!0-9]/}"
  done
}
where='[a-z_]+ .*over [a-z ]+ \(number [0-9]+\): waited 3\.[0-9] s'
start 2 silent2 parallel.tp=2 parallel.timeout_seconds=3
kill -STOP "$(pid_of_rank 1)"
ends 75 "$where; not there: rank 1 \(silent\)" 'one of two ranks is stopped'
# Whichever rank speaks first ends the job; it may wait for one that itself waits for rank 2.
start 4 silent4 parallel.tp=2 parallel.cp=2 parallel.timeout_seconds=3
kill -STOP "$(pid_of_rank 2)"
ends 75 "$where; not there: .*rank [023]" 'one of four ranks is stopped'

# --- A rank that fails in a step: it alone meets the damaged token ----------------------------------------
python3 - "$dir/tokens/text.train.h5" <<'PY' || exit 1
import sys
data = bytearray(open(sys.argv[1], 'rb').read())
middle = len(data) // 4 * 2  # tokens are uint16
data[middle:middle + 2] = b'\xff\xff'
open(sys.argv[1], 'wb').write(data)
PY
for mesh in parallel.ep=2 parallel.zero=3; do
  train 65 'jamba train: rank [0-3] of 4: .*text.train.h5.* 65535' 4 "broken$cases" "$mesh" \
    train.steps=200
  (($(grep -c '^jamba train: ' "$dir/out") == 1)) || fail "$mesh: not said once"
done
finish
