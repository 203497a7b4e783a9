# Sourced by the tests of this folder: a folder of their own ($dir), and commands with the exit code
# and the output that they must have. All temporary files of what runs lie under $TMPDIR.
# shellcheck shell=bash disable=SC2034  # $launch is for those who source this
jamba=$1  # of the test
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
launch=$here/scripts/launch
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TMPDIR=$dir/tmp
mkdir "$TMPDIR"
failures=0
cases=0
limit=60

fail() {
  failures=$((failures + 1))
  echo "FAIL: $*"
  sed 's/^/  | /' "$dir/out" | tail -20
}

# expect CODE PATTERN COMMAND...: the command ends with CODE within $limit seconds, prints PATTERN,
# and leaves nothing behind. Its output is in $dir/out.
expect() {
  local code=$1 pattern=$2 got
  shift 2
  cases=$((cases + 1))
  timeout -k 5 "$limit" "$@" >"$dir/out" 2>&1
  got=$?
  if [[ $got -ne $code ]] || ! grep -qE -- "$pattern" "$dir/out"; then
    fail "$*: expected exit $code and /$pattern/, got exit $got and:"
  fi
  expect_nothing_left "$*"
}

# Files of a job lie in its folder, and its processes carry that in their environment.
expect_nothing_left() {
  local left
  left=$(find "$TMPDIR" -name 'launch.*' && grep -alz "^TMPDIR=$TMPDIR/launch" /proc/[0-9]*/environ 2>/dev/null)
  [[ -z $left ]] || fail "$1: left over: $left"
}

# A corpus of documents of very uneven length, and its stores $dir/tokens/text.{train,validation}.h5.
make_tokens() {
  awk 'BEGIN {
    for (i = 1; i <= 120; ++i) {
      text = "Story " i
      for (k = i * i * 7 % 23; k >= 0; --k) text = text " tells of a river, a mill and " (i * k) ";"
      print "{\"text\": \"" text " no more.\"}"
    }
  }' >"$dir/text.jsonl"
  "$jamba" data prepare --tokenizer bytes --input "$dir/text.jsonl" --output-dir "$dir/tokens" \
    --validation-fraction 0.1 >/dev/null || exit 1
}

# Writes $dir/run.yaml: eight layers, attention in layer 3, experts in every other layer.
make_run_config() {
  cat >"$dir/run.yaml" <<YAML
run_dir: $dir/run
model:
  vocab_size: 259
  hidden_size: 32
  intermediate_size: 48
  num_hidden_layers: 8
  num_attention_heads: 4
  num_key_value_heads: 2
  mamba_d_state: 8
  num_experts: 4
  attn_layer_period: 8
  attn_layer_offset: 3
data:
  tokenizer: bytes
  seq_len: 64
  sources:
    - {name: text, train: $dir/tokens/text.train.h5, validation: $dir/tokens/text.validation.h5}
train: {steps: 20, micro_batch_size: 1, global_batch_size: 8, peak_gflops: 1, threads: 1}
optimizer: {lr: 3e-3, warmup_steps: 2}
eval: {max_tokens: 512}
YAML
}

finish() {
  echo "$cases cases, $failures failures"
  [[ $failures -eq 0 ]]
}
