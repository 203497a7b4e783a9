#include "kernels/linear/product_cuda.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "kernels/core/backend.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/handle.h"
#include "kernels/core/memory.h"

namespace jamba::cuda {

namespace {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw LogicError(fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
}

// What fails in a destructor was reported by an earlier call, or the process ends.
void destroy_handle(cublasLtHandle_t handle) { static_cast<void>(cublasLtDestroy(handle)); }
void destroy_operation(cublasLtMatmulDesc_t d) { static_cast<void>(cublasLtMatmulDescDestroy(d)); }
void destroy_layout(cublasLtMatrixLayout_t l) { static_cast<void>(cublasLtMatrixLayoutDestroy(l)); }
void destroy_preference(cublasLtMatmulPreference_t p) {
  static_cast<void>(cublasLtMatmulPreferenceDestroy(p));
}
using LtHandle = UniqueHandle<cublasLtHandle_t, destroy_handle>;
using Operation = UniqueHandle<cublasLtMatmulDesc_t, destroy_operation>;
using Layout = UniqueHandle<cublasLtMatrixLayout_t, destroy_layout>;
using Preference = UniqueHandle<cublasLtMatmulPreference_t, destroy_preference>;

cudaDataType_t data_type(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

/// cuBLASLt thinks in columns: the row-major c [m, n] is its c^T [n, m], so it gets b first.
Layout make_layout(DType dtype, std::int64_t row_elements, std::int64_t rows) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, data_type(dtype),
                                   static_cast<std::uint64_t>(row_elements),
                                   static_cast<std::uint64_t>(rows), row_elements),
        "making a layout");
  return Layout(layout);
}

void set_bias(const Operation& operation, const void* bias) {
  check(cublasLtMatmulDescSetAttribute(operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                       static_cast<const void*>(&bias), sizeof bias),
        "setting a bias");
}

Operation make_operation(Form form, const void* bias) {
  cublasLtMatmulDesc_t made = nullptr;
  check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "making a product");
  Operation operation(made);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check(cublasLtMatmulDescSetAttribute(made, attribute, &value, sizeof value),
          "describing a product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, form == Form::y ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, form == Form::dw ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set_bias(operation, bias);  // the choice of a kernel looks at its alignment
  }
  return operation;
}

/// The largest power of two, 256 at most, that divides the address. 0: nothing is there.
std::uint32_t alignment_of(const void* data) {
  constexpr std::uintptr_t kMost = 256;
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::uint32_t>(std::min(address & (~address + 1), kMost));
}

/// A product as cuBLASLt knows it, ready to run.
struct Plan {
  Operation operation;
  Layout first, second, result;
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspace_bytes;
};

class Products final : public BackendState {
 public:
  explicit Products(Stream&) {
    cublasLtHandle_t handle = nullptr;
    check(cublasLtCreate(&handle), "starting");
    handle_ = LtHandle(handle);
  }

  cublasLtHandle_t handle() const { return handle_.get(); }

  const Plan& plan(const Product& p) {
    const Key key{p.form,
                  p.dtype,
                  p.result_dtype,
                  p.m,
                  p.n,
                  p.k,
                  alignment_of(p.a),
                  alignment_of(p.b),
                  alignment_of(p.c),
                  alignment_of(p.bias)};
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    // Experts' row counts change every step: the map must not grow for ever.
    constexpr std::size_t kMostPlans = 4096;
    if (plans_.size() == kMostPlans) plans_.clear();
    return plans_.emplace(key, make_plan(p)).first->second;
  }

 private:
  using Key = std::tuple<Form, DType, DType, std::int64_t, std::int64_t, std::int64_t,
                         std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;

  Plan make_plan(const Product& p) const {
    Plan plan{make_operation(p.form, p.bias),
              p.form == Form::y ? make_layout(p.dtype, p.k, p.n) : make_layout(p.dtype, p.n, p.k),
              p.form == Form::dw ? make_layout(p.dtype, p.m, p.k) : make_layout(p.dtype, p.k, p.m),
              make_layout(p.result_dtype, p.n, p.m),
              {},
              0};
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "making a preference");
    const Preference preference(made);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof value),
            "setting a preference");
    };
    constexpr std::size_t kMostWorkspace = 32 << 20;
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
    // Split sums meet in float32 in the workspace, in order: never rounded in between.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.c));
    cublasLtMatmulHeuristicResult_t best{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_.get(), plan.operation.get(), plan.first.get(), plan.second.get(), plan.result.get(),
        plan.result.get(), made, 1, &best, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0)) {
      throw UnsupportedError(
          fmt::format("cuBLASLt has no kernel for [{}, {}] x [{}, {}] in {} to {}", p.m, p.k, p.k,
                      p.n, dtype_name(p.dtype), dtype_name(p.result_dtype)));
    }
    check(status, "choosing a kernel");
    plan.algorithm = best.algo;
    plan.workspace_bytes = best.workspaceSize;
    return plan;
  }

  LtHandle handle_;
  std::map<Key, Plan> plans_;
};

}  // namespace

void multiply(Stream& stream, Arena& scratch, const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (p.write == Write::overwrite)
      fill_bytes(stream, p.c, 0, p.m * p.n * dtype_bytes(p.result_dtype));
    return;
  }
  auto& products = stream.backend_state<Products>();
  const Plan& plan = products.plan(p);
  if (p.bias) set_bias(plan.operation, p.bias);
  const ArenaScope scope(scratch);
  void* const workspace = scratch.allocate_bytes(static_cast<std::int64_t>(plan.workspace_bytes));
  const float alpha = 1.0f, beta = p.write == Write::accumulate ? 1.0f : 0.0f;
  check(cublasLtMatmul(products.handle(), plan.operation.get(), &alpha, p.b, plan.first.get(), p.a,
                       plan.second.get(), &beta, p.c, plan.result.get(), p.c, plan.result.get(),
                       &plan.algorithm, workspace, plan.workspace_bytes, native(stream)),
        "multiplying");
}

std::string matmul_library_version() {
  const std::size_t version = cublasLtGetVersion();
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace jamba::cuda
