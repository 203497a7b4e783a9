#!/usr/bin/env bash
# Bad input to the program: each case has one clear message and its exit code, on one rank and on two.
# usage: bad_input_test.sh JAMBA_BINARY
set -uo pipefail
# shellcheck source=tests/app/expect.sh
source "$(dirname "$0")/expect.sh"

# --- Material: a tiny corpus, its stores, a config, a checkpoint ------------------------------------
for i in $(seq 1 40); do
  echo "{\"text\": \"Story $i tells of a river, a mill and the number $((i * i)) once more.\", \"title\": \"t$i\"}"
done >"$dir/text.jsonl"
"$jamba" data prepare --tokenizer bytes --input "$dir/text.jsonl" --output-dir "$dir/tokens" \
  --validation-fraction 0.1 >/dev/null || exit 1
cat >"$dir/run.yaml" <<EOF
run_dir: $dir/run
model:
  vocab_size: 259
  hidden_size: 32
  intermediate_size: 48
  num_hidden_layers: 2
  num_attention_heads: 2
  num_key_value_heads: 1
  num_experts: 4
  attn_layer_period: 2
  attn_layer_offset: 1
data:
  tokenizer: bytes
  seq_len: 32
  sources:
    - {name: text, train: $dir/tokens/text.train.h5, validation: $dir/tokens/text.validation.h5}
train: {steps: 2, micro_batch_size: 1, peak_gflops: 1, threads: 1}
EOF
"$jamba" train "$dir/run.yaml" >/dev/null || exit 1
checkpoint=$dir/run/checkpoints

# --- Both on one rank and on two -------------------------------------------------------------------
for ranks in 1 2; do
  train=("$launch" -n "$ranks" --timeout 50 -- "$jamba" train)
  run="run_dir=$dir/fresh$ranks"
  expect 66 "nowhere.yaml" "${train[@]}" "$dir/nowhere.yaml"
  expect 66 "missing.h5" "${train[@]}" "$dir/run.yaml" "$run" "data.sources.0.train=$dir/missing.h5"
  expect 66 "no.model" "${train[@]}" "$dir/run.yaml" "$run" "data.tokenizer=$dir/no.model"
  expect 2 "hiden_size.*did you mean.*hidden_size" "${train[@]}" "$dir/run.yaml" model.hiden_size=3
  expect 2 "train.steps" "${train[@]}" "$dir/run.yaml" train.steps=abc
  expect 2 "parallel.tp: $ranks ranks are no multiple of .*nearest: parallel.tp=$ranks" \
    "${train[@]}" "$dir/run.yaml" parallel.tp=4
  expect 2 "parallel.pp_layers: must be as many whole numbers as chunks \(1\)" "${train[@]}" "$dir/run.yaml" parallel.pp_layers=5,3
  expect 2 "parallel.zero: must be from 0 to 3, got 4" "${train[@]}" "$dir/run.yaml" parallel.zero=4
  expect 2 "vocab" "${train[@]}" "$dir/run.yaml" "$run" model.vocab_size=300
  expect 65 "holds [0-9]+ tokens, fewer than one sequence" "${train[@]}" "$dir/run.yaml" "$run" data.seq_len=100000
  expect 65 "global batch|windows" "${train[@]}" "$dir/run.yaml" "$run" train.global_batch_size=4000
  head -c 3000 "$dir/tokens/text.train.h5" >"$dir/short.h5"
  expect 65 "short.h5" "${train[@]}" "$dir/run.yaml" "$run" "data.sources.0.train=$dir/short.h5"
  echo "this is no HDF5 file, whatever its name says" >"$dir/text.h5"
  expect 65 "text.h5" "${train[@]}" "$dir/run.yaml" "$run" "data.sources.0.train=$dir/text.h5"
  expect 76 "hidden_size" "${train[@]}" "$dir/run.yaml" model.hidden_size=64 model.num_attention_heads=4
  expect 73 "run directory|cannot create" "${train[@]}" "$dir/run.yaml" run_dir=/proc/nowhere/run
done

# --- Started without the launcher where more ranks were asked for -----------------------------------
expect 2 "WORLD_SIZE=2 promises 2 ranks" env WORLD_SIZE=2 "$jamba" train "$dir/run.yaml"

# --- Meshes that the ranks make, but the model or the batch does not fit ---------------------------
two=("$here/scripts/launch" -n 2 --timeout 50 -- "$jamba")
expect 2 "parallel.tp: 2 ranks cannot share 3 attention heads evenly; nearest: 1" \
  "${two[@]}" train "$dir/run.yaml" parallel.tp=2 model.hidden_size=48 model.num_attention_heads=3
expect 2 "parallel.ep: 2 ranks cannot share 5 experts evenly; nearest: 1" \
  "${two[@]}" train "$dir/run.yaml" parallel.ep=2 model.num_experts=5
expect 2 "parallel.pp: 2 stages x 2 chunks must be at most model.num_hidden_layers" \
  "${two[@]}" train "$dir/run.yaml" parallel.pp=2 parallel.pp_chunks=2
expect 2 "parallel.deterministic: tree needs a power of two of microbatches" \
  "${two[@]}" train "$dir/run.yaml" parallel.deterministic=tree train.global_batch_size=6
golden=$here/tests/goldens/odd_seq17
expect 2 "parallel.tp: must be from 1 to 1048576, got 0" "$jamba" verify "$golden" parallel.tp=0
expect 2 "parallel.tp: 1 ranks are no multiple" "$jamba" verify "$golden" parallel.tp=2
expect 2 "train.steps=3: the fixture decides all but" "$jamba" verify "$golden" train.steps=3

# --- The other commands ------------------------------------------------------------------------------
expect 2 "subcommand|required" "$jamba"
expect 2 "--frobnicate|were not expected" "$jamba" train --frobnicate "$dir/run.yaml"
expect 66 "nowhere" "$jamba" eval --checkpoint "$dir/nowhere" --data "$dir/tokens/text.validation.h5"
expect 66 "nowhere" "$jamba" import --from "$dir/nowhere" --to "$dir/imported"
expect 66 "nowhere" "$jamba" score --checkpoint "$checkpoint" --input "$dir/nowhere" --output "$dir/o"
echo '{"ids": [1, 2, 999]}' >"$dir/beyond.jsonl"
expect 65 "beyond.jsonl:1: token 999" "$jamba" score --checkpoint "$checkpoint" --input "$dir/beyond.jsonl" --output "$dir/o"
echo '{"ids": [1, 2' >"$dir/broken.jsonl"
expect 65 "broken.jsonl:1" "$jamba" score --checkpoint "$checkpoint" --input "$dir/broken.jsonl" --output "$dir/o"
echo '{"ids": [1, 2, 3]}' >"$dir/good.jsonl"
expect 73 "No such file|cannot" "$jamba" score --checkpoint "$checkpoint" --input "$dir/good.jsonl" --output "$dir/no/such/o"
: >"$dir/empty.jsonl"
expect 65 "no document|no text|empty" "$jamba" data prepare --tokenizer bytes --input "$dir/empty.jsonl" --output-dir "$dir/e"
expect 65 "empty|no text" "$jamba" data tokenizer --vocab-size 400 --input "$dir/empty.jsonl" --output "$dir/e.model"
expect 66 "nowhere" "$jamba" data inspect "$dir/nowhere.h5"
cp -r "$checkpoint/step-00000002" "$dir/damaged"
printf 'x' | dd of="$dir/damaged/rank-00000.h5" bs=1 seek=5000 conv=notrunc status=none
expect 76 "rank-00000.h5" "$jamba" eval --checkpoint "$dir/damaged" --data "$dir/tokens/text.validation.h5"

# --- No space left: the earlier checkpoint stays ------------------------------------------------------
small=$dir/small
mkdir "$small"
if mount -t tmpfs -o size=1m tmpfs "$small" 2>/dev/null; then
  expect 74 "No space left" "$launch" -n 2 --timeout 50 -- "$jamba" train "$dir/run.yaml" \
    "run_dir=$small/run" log.tensorboard=false model.hidden_size=128 model.num_attention_heads=4
  umount "$small"
else
  echo "skipped: no tmpfs can be mounted here"
fi

finish
