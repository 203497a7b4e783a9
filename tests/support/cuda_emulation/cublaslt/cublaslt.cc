// cuBLASLt's twin: rejects what it does not implement, and what the real one does not promise to
// take.

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/cuda_emulation/bf16.h"
#include "tests/support/cuda_emulation/emulation.h"

using cuda_emulation::fail;

struct cublasLtContext {};

struct cublasLtMatmulDescOpaque_t {
  cublasOperation_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};

struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type;
  std::uint64_t rows, cols;
  std::int64_t ld;
};

struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace = 0;
  std::uint32_t reductions = 7;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // as the real defaults
};

namespace {

using Layout = cublasLtMatrixLayoutOpaque_t;

constexpr std::size_t kWorkspaceBytes = 1024;

std::uint64_t element_bytes(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

std::uint64_t bytes_of(const Layout& l) {
  return ((l.cols - 1) * static_cast<std::uint64_t>(l.ld) + l.rows) * element_bytes(l.type);
}

template <class T>
T value_of(const void* value, std::size_t bytes, const char* what) {
  if (bytes != sizeof(T)) fail(std::string("cuBLASLt: an attribute of another size: ") + what);
  T out;
  std::memcpy(static_cast<void*>(&out), value, sizeof(T));
  return out;
}

/// A product's sizes.
struct Shape {
  std::uint64_t m, n, k;
};

Shape shape_of(const cublasLtMatmulDescOpaque_t& op, const Layout& a, const Layout& b,
               const Layout& c, const Layout& d) {
  const auto rows = [](const Layout& l, cublasOperation_t t) {
    return t == CUBLAS_OP_N ? l.rows : l.cols;
  };
  const auto cols = [](const Layout& l, cublasOperation_t t) {
    return t == CUBLAS_OP_N ? l.cols : l.rows;
  };
  const Shape s{rows(a, op.transa), cols(b, op.transb), cols(a, op.transa)};
  if (rows(b, op.transb) != s.k || d.rows != s.m || d.cols != s.n || c.rows != s.m || c.cols != s.n)
    fail("cuBLASLt: layouts that do not fit each other");
  if (a.type != b.type || c.type != d.type || (d.type != CUDA_R_32F && d.type != a.type))
    fail("cuBLASLt: types that it does not multiply");
  return s;
}

/// What operands were promised to be aligned to: a, b, c, d, the bias (0: without one).
using Alignments = std::array<std::uint32_t, 5>;

/// The largest power of two, 256 at most, that divides the bias's address.
std::uint32_t bias_alignment(const cublasLtMatmulDescOpaque_t& op) {
  if (op.epilogue != CUBLASLT_EPILOGUE_BIAS) return 0;
  if (op.bias == nullptr) fail("cuBLASLt: a bias is asked for, but there is none");
  const auto address = reinterpret_cast<std::uintptr_t>(op.bias) | 256;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

/// What an algorithm was chosen for, in its opaque words.
cublasLtMatmulAlgo_t fingerprint(const cublasLtMatmulDescOpaque_t& op, const Layout& a,
                                 const Layout& b, const Layout& d, const Alignments& align) {
  const Shape s = shape_of(op, a, b, d, d);
  const auto pack = [](std::uint64_t x, std::uint64_t y) { return x << 32 | y; };
  return {{s.m, s.n, s.k,
           pack(static_cast<std::uint64_t>(op.transa) * 2 + static_cast<std::uint64_t>(op.transb),
                static_cast<std::uint64_t>(a.type) * 64 + static_cast<std::uint64_t>(d.type)),
           pack(static_cast<std::uint64_t>(a.ld), static_cast<std::uint64_t>(b.ld)),
           pack(static_cast<std::uint64_t>(d.ld), align[4]), pack(align[0], align[1]),
           pack(align[2], align[3])}};
}

Alignments alignments_of(const cublasLtMatmulAlgo_t& algorithm) {
  const auto high = [&](int i) { return static_cast<std::uint32_t>(algorithm.data[i] >> 32); };
  const auto low = [&](int i) { return static_cast<std::uint32_t>(algorithm.data[i]); };
  return {high(6), low(6), high(7), low(7), low(5)};
}

float read(const void* data, cudaDataType_t type, std::uint64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  return cuda_emulation::from_bf16(static_cast<const std::uint16_t*>(data)[i]);
}

void write(void* data, cudaDataType_t type, std::uint64_t i, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[i] = value;
    return;
  }
  static_cast<std::uint16_t*>(data)[i] = cuda_emulation::to_bf16(value);
}

/// op(matrix) by rows, or op(matrix)^T by rows: [outer, k], k consecutive.
std::vector<float> unpack(const void* data, const Layout& l, bool k_is_rows, std::uint64_t outer,
                          std::uint64_t k) {
  std::vector<float> out(outer * k);
  const auto ld = static_cast<std::uint64_t>(l.ld);
  for (std::uint64_t o = 0; o < outer; ++o) {
    for (std::uint64_t i = 0; i < k; ++i)
      out[o * k + i] = read(data, l.type, k_is_rows ? o * ld + i : i * ld + o);
  }
  return out;
}

/// The sum of products, in sixteen chains that vectors can hold.
float dot(const float* a, const float* b, std::uint64_t n) {
  constexpr std::uint64_t kLanes = 16;
  float sums[kLanes] = {};
  std::uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::uint64_t j = 0; j < kLanes; ++j) sums[j] += a[i + j] * b[i + j];
  }
  float total = 0;
  for (; i < n; ++i) total += a[i] * b[i];
  for (const float sum : sums) total += sum;
  return total;
}

struct Call {
  cublasLtMatmulDescOpaque_t op;
  Layout la, lb, lc;
  const void *a, *b, *c;
  void* d;
  float alpha, beta;
};

void multiply(const Call& call) {
  const Shape s = shape_of(call.op, call.la, call.lb, call.lc, call.lc);
  cuda_emulation::expect_written(call.a, bytes_of(call.la), "cublasLtMatmul: a");
  cuda_emulation::expect_written(call.b, bytes_of(call.lb), "cublasLtMatmul: b");
  if (call.beta != 0)
    cuda_emulation::expect_written(call.c, bytes_of(call.lc), "cublasLtMatmul: c");
  const bool bias = call.op.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (bias) {
    cuda_emulation::expect_written(call.op.bias, s.m * element_bytes(call.lc.type),
                                   "cublasLtMatmul: bias");
  }
  const std::vector<float> a = unpack(call.a, call.la, call.op.transa == CUBLAS_OP_T, s.m, s.k);
  const std::vector<float> b = unpack(call.b, call.lb, call.op.transb == CUBLAS_OP_N, s.n, s.k);
  for (std::uint64_t n = 0; n < s.n; ++n) {
    for (std::uint64_t m = 0; m < s.m; ++m) {
      const std::uint64_t at = n * static_cast<std::uint64_t>(call.lc.ld) + m;
      float value = call.alpha * dot(&a[m * s.k], &b[n * s.k], s.k);
      if (call.beta != 0) value += call.beta * read(call.c, call.lc.type, at);
      if (bias) value += read(call.op.bias, call.lc.type, m);
      write(call.d, call.lc.type, at, value);
    }
  }
  cuda_emulation::mark_written(call.d, bytes_of(call.lc));
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "an error of cuBLASLt";
}
std::size_t cublasLtGetVersion() { return 0; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
    fail("cuBLASLt: products in anything but float32");
  *d = new cublasLtMatmulDescOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete d;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  const auto operation = [&] {
    const auto op = value_of<cublasOperation_t>(value, bytes, "transposition");
    if (op != CUBLAS_OP_N && op != CUBLAS_OP_T) fail("cuBLASLt: another operation");
    return op;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      d->transa = operation();
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      d->transb = operation();
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      d->epilogue = value_of<cublasLtEpilogue_t>(value, bytes, "epilogue");
      if (d->epilogue != CUBLASLT_EPILOGUE_DEFAULT && d->epilogue != CUBLASLT_EPILOGUE_BIAS)
        fail("cuBLASLt: another epilogue");
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      d->bias = value_of<const void*>(value, bytes, "bias");
      return CUBLAS_STATUS_SUCCESS;
  }
  fail("cuBLASLt: attribute " + std::to_string(attribute) + " of a product");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  if (type != CUDA_R_32F && type != CUDA_R_16BF) fail("cuBLASLt: matrices of another type");
  if (rows == 0 || cols == 0 || ld < static_cast<std::int64_t>(rows))
    fail("cuBLASLt: a layout of " + std::to_string(rows) + " x " + std::to_string(cols) +
         " with leading dimension " + std::to_string(ld));
  *l = new cublasLtMatrixLayoutOpaque_t{type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete l;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  *p = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  delete p;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      p->workspace = value_of<std::uint64_t>(value, bytes, "workspace");
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      p->reductions = value_of<std::uint32_t>(value, bytes, "reductions");
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      p->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] =
          value_of<std::uint32_t>(value, bytes, "alignment");
      return CUBLAS_STATUS_SUCCESS;
  }
  fail("cuBLASLt: preference " + std::to_string(attribute));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t p, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
  if (requested != 1) fail("cuBLASLt: several algorithms");
  if ((p->reductions & ~std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}) != 0)
    fail("cuBLASLt: sums that are rounded in between are allowed");
  shape_of(*op, *a, *b, *c, *d);
  results[0] = {};
  const auto& align = p->alignment;
  results[0].algo =
      fingerprint(*op, *a, *b, *d, {align[0], align[1], align[2], align[3], bias_alignment(*op)});
  results[0].workspaceSize = std::min<std::size_t>(p->workspace, kWorkspaceBytes);
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t la, const void* b,
                              cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                              cublasLtMatrixLayout_t lc, void* d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const auto expect = [](const void* data, const Layout& l, const char* what) {
    cuda_emulation::expect_device_range(data, bytes_of(l), what);
  };
  shape_of(*op, *la, *lb, *lc, *ld);
  expect(a, *la, "cublasLtMatmul: a");
  expect(b, *lb, "cublasLtMatmul: b");
  expect(c, *lc, "cublasLtMatmul: c");
  expect(d, *ld, "cublasLtMatmul: d");
  if (c != d || lc->ld != ld->ld) fail("cublasLtMatmul: c is not d");
  cuda_emulation::expect_device_range(workspace, workspace_bytes, "cublasLtMatmul: workspace");
  if (workspace_bytes < kWorkspaceBytes)
    fail("cublasLtMatmul: less workspace than its algorithm's");
  const Alignments align = alignments_of(*algorithm);
  const cublasLtMatmulAlgo_t expected = fingerprint(*op, *la, *lb, *ld, align);
  if (!std::equal(std::begin(expected.data), std::end(expected.data), algorithm->data))
    fail("cublasLtMatmul: an algorithm that was chosen for another product");
  const bool bias = op->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (bias != (align[4] != 0))
    fail("cublasLtMatmul: an algorithm that was chosen for another epilogue");
  if (bias) {
    const std::uint64_t bytes = ld->rows * element_bytes(ld->type);
    cuda_emulation::expect_device_range(op->bias, bytes, "cublasLtMatmul: bias");
  }
  const void* const operands[5] = {a, b, c, d, op->bias};
  for (std::size_t i = 0; i < (bias ? 5 : 4); ++i) {
    if (align[i] == 0 || reinterpret_cast<std::uintptr_t>(operands[i]) % align[i] != 0)
      fail("cublasLtMatmul: operand " + std::to_string(i) + " is aligned less than promised, " +
           std::to_string(align[i]));
  }
  const Call call{*op,
                  *la,
                  *lb,
                  *lc,
                  a,
                  b,
                  c,
                  d,
                  *static_cast<const float*>(alpha),
                  *static_cast<const float*>(beta)};
  cuda_emulation::enqueue(stream, "cublasLtMatmul", [call] {
    const cuda_emulation::DeviceAccess access;
    multiply(call);
    return true;
  });
  return CUBLAS_STATUS_SUCCESS;
}
