#!/usr/bin/env bash
# `jamba verify` on meshes of real ranks: the reference's gradients hold on each, what is dumped is
# the logical tensors, and a mesh that does not fit is refused once.
# usage: verify_mesh_test.sh JAMBA_BINARY
set -euo pipefail
jamba=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
goldens=$here/tests/goldens
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# verify RANKS GOLDEN SETTINGS...
verify() {
  local ranks=$1 golden=$2
  shift 2
  "$here/scripts/launch" -n "$ranks" --timeout 100 -- "$jamba" verify "$goldens/$golden" "$@" \
    >"$dir/out" 2>&1 </dev/null || {
    cat "$dir/out" >&2
    fail "$golden on $ranks ranks with $*"
  }
}

while read -r ranks golden settings; do
  # shellcheck disable=SC2086  # several settings
  verify "$ranks" "$golden" $settings
done <"$goldens/meshes"

"$jamba" verify "$goldens/tied_embeddings" --dump "$dir/one.safetensors" >/dev/null
verify 8 tied_embeddings --dump "$dir/eight.safetensors" parallel.tp=2 parallel.cp=2 parallel.pp=2
python3 - "$dir/one.safetensors" "$dir/eight.safetensors" <<'PY' || fail "dumps differ"
import array, json, struct, sys

def read(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name.startswith("__"):
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["shape"], array.array("f", data[8 + size + begin : 8 + size + end]))
    return tensors

one, eight = (read(path) for path in sys.argv[1:])
assert one.keys() == eight.keys()
for name, (shape, values) in one.items():
    other_shape, others = eight[name]
    assert shape == other_shape, name
    size = sum(v * v for v in values) ** 0.5
    error = sum((a - b) ** 2 for a, b in zip(values, others)) ** 0.5
    assert error <= 1e-5 * size, (name, error / size)
PY

# refused CODE PATTERN RANKS GOLDEN SETTINGS...: said once, whatever the number of ranks.
refused() {
  local code=$1 pattern=$2 ranks=$3 golden=$4 got=0
  shift 4
  "$here/scripts/launch" -n "$ranks" --timeout 60 -- "$jamba" verify "$goldens/$golden" "$@" \
    >"$dir/out" 2>&1 || got=$?
  [[ $got -eq $code ]] || fail "$* ended with $got, expected $code: $(cat "$dir/out")"
  [[ $(grep -cE -- "$pattern" "$dir/out") -eq 1 ]] || fail "$*: not once /$pattern/: $(cat "$dir/out")"
}
refused 2 'no multiple of tp x pp x cp' 4 odd_seq17 parallel.tp=3
refused 2 '5 experts' 2 odd_seq17 parallel.ep=2
refused 2 'unknown key|no such key|parallel.tq' 2 odd_seq17 parallel.tq=2
echo "all meshes agree"
