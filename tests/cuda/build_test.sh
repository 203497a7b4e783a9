#!/usr/bin/env bash
# Builds a preset with nvcc and looks at the program: it links the CUDA libraries, and without a GPU it
# says so and runs on the CPU.   usage: build_test.sh cuda|ptx
set -euo pipefail
cd "$(dirname "$0")/../.."
preset=$1
readonly skipped=77

if ! command -v nvcc >/dev/null; then
  echo "SKIPPED: no nvcc here, so the preset $preset was not built"
  exit "$skipped"
fi

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

libraries_wanted=(libcublasLt libnccl)
names_wanted=('CUDA runtime' cuBLASLt NCCL)
if [[ $preset == ptx ]]; then
  libraries_wanted+=(libcudart)
else
  libraries_wanted+=(libcudnn)
  names_wanted+=(cuDNN)
  scripts/install_cudnn_frontend
fi

seconds=$SECONDS
# The flags of the preset ci, so that ccache has the objects that do not know of CUDA.
cmake --preset "$preset" -DJAMBA_WERROR=ON >/dev/null
cmake --build "build/$preset" --parallel 2 | tail -n 1
echo "built in $((SECONDS - seconds)) s"

jamba=build/$preset/jamba
libraries=$(ldd "$jamba")
for library in "${libraries_wanted[@]}"; do
  [[ $libraries == *$library* ]] || fail "$jamba does not link $library"
done
[[ $libraries != *"not found"* ]] || fail "$jamba misses libraries: $libraries"

doctor=$("$jamba" doctor) || fail "doctor"
for name in "${names_wanted[@]}"; do
  [[ $doctor == *$name* ]] || fail "doctor does not name $name: $doctor"
done
if [[ $doctor == *"no device"* ]]; then
  code=0
  message=$("$jamba" verify tests/goldens/op_mamba train.device=cuda 2>&1) || code=$?
  [[ $code -eq 2 && $message == *"device cuda"* ]] || fail "train.device=cuda ended with $code: $message"
  message=$("$jamba" verify tests/goldens/op_mamba)
  [[ $message == *"all within tolerance"* ]] || fail "verify on the CPU: $message"
fi
if [[ $preset == cuda ]]; then
  ctest --test-dir build/cuda -R '^cudnn_graph_test$' --no-tests=error --output-on-failure || fail "cudnn_graph_test"
fi
