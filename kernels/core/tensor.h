#pragma once
// A non-owning view of a contiguous row-major array.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "kernels/core/device.h"
#include "kernels/core/dtype.h"
#include "kernels/core/errors.h"

namespace jamba {

/// Pointer, dtype, device and up to four dims; the last dim varies fastest, without gaps.
/// A default-constructed Tensor is "absent": optional arguments of operations use it.
/// Ownership: none. The Buffer or Arena behind it must outlive the view.
class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<std::int64_t> dims, Device device = {})
      : Tensor(data, dtype, std::span<const std::int64_t>(dims.begin(), dims.size()), device) {}
  Tensor(void* data, DType dtype, std::span<const std::int64_t> dims, Device device = {});

  bool absent() const { return rank_ < 0; }
  bool present() const { return rank_ >= 0; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int rank() const { return rank_; }
  std::int64_t dim(int i) const;
  std::span<const std::int64_t> dims() const {
    return {dims_.data(), static_cast<std::size_t>(rank_ < 0 ? 0 : rank_)};
  }
  std::int64_t numel() const;
  std::int64_t bytes() const { return numel() * dtype_bytes(dtype_); }
  /// Product of all dims but the last; a tensor of rank 1 is one row.
  std::int64_t rows() const;
  /// The last dim.
  std::int64_t cols() const;

  void* raw() const { return data_; }
  template <class T>
  T* ptr() const {
    JAMBA_CHECK(absent() || dtype_ == kDTypeOf<T>, "tensor holds {}, asked for {}",
                dtype_name(dtype_), dtype_name(kDTypeOf<T>));
    return static_cast<T*>(data_);
  }

  /// The same elements under other dims of equal product.
  Tensor view(std::initializer_list<std::int64_t> dims) const;
  /// Elements [begin, begin + count) of dim 0.
  Tensor slice(std::int64_t begin, std::int64_t count) const;
  /// "float32[4, 16]", for messages.
  std::string describe() const;

 private:
  void* data_ = nullptr;
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = -1;
  DType dtype_ = DType::f32;
  Device device_{};
};

/// Throws LogicError naming `what` unless `t` is present with this dtype and these dims (-1: any).
void expect_tensor(const char* what, const Tensor& t, DType dtype,
                   std::initializer_list<std::int64_t> dims);
/// The same for float32 or bfloat16.
void expect_float_tensor(const char* what, const Tensor& t,
                         std::initializer_list<std::int64_t> dims);

/// Calls f(T{}) with T = float or bfloat16.
template <class F>
decltype(auto) visit_float(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(float{});
  JAMBA_CHECK(dtype == DType::bf16, "expected a floating dtype, got {}", dtype_name(dtype));
  return f(bfloat16{});
}

}  // namespace jamba
