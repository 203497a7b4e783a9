#include "kernels/core/tensor.h"

#include <algorithm>

namespace jamba {

Tensor::Tensor(void* data, DType dtype, std::span<const std::int64_t> dims, Device device)
    : data_(data), rank_(static_cast<int>(dims.size())), dtype_(dtype), device_(device) {
  JAMBA_CHECK(rank_ <= kMaxRank, "rank {} above {}", rank_, kMaxRank);
  std::copy(dims.begin(), dims.end(), dims_.begin());
  for (const std::int64_t d : dims) JAMBA_CHECK(d >= 0, "negative dim {}", d);
  JAMBA_CHECK(data != nullptr || numel() == 0, "null data for {}", describe());
}

std::int64_t Tensor::dim(int i) const {
  JAMBA_CHECK(i >= 0 && i < rank_, "dim {} of a tensor of rank {}", i, rank_);
  return dims_[static_cast<std::size_t>(i)];
}

std::int64_t Tensor::numel() const {
  if (rank_ < 0) return 0;
  std::int64_t n = 1;
  for (const std::int64_t d : dims()) n *= d;
  return n;
}

std::int64_t Tensor::rows() const {
  std::int64_t n = 1;
  for (int i = 0; i + 1 < rank_; ++i) n *= dim(i);
  return n;
}

std::int64_t Tensor::cols() const { return dim(rank_ - 1); }

Tensor Tensor::view(std::initializer_list<std::int64_t> dims) const {
  const Tensor t(data_, dtype_, dims, device_);
  JAMBA_CHECK(t.numel() == numel(), "cannot view {} as {}", describe(), t.describe());
  return t;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  JAMBA_CHECK(begin >= 0 && count >= 0 && begin + count <= dim(0), "slice [{}, +{}) of {}", begin,
              count, describe());
  Tensor t = *this;
  const std::int64_t stride = dim(0) == 0 ? 0 : bytes() / dim(0);
  t.data_ = data_ == nullptr ? nullptr : static_cast<char*>(data_) + begin * stride;
  t.dims_[0] = count;
  return t;
}

std::string Tensor::describe() const {
  if (absent()) return "absent";
  return fmt::format("{}[{}]", dtype_name(dtype_), fmt::join(dims(), ", "));
}

namespace {

void expect_dims(const char* what, const Tensor& t, std::initializer_list<std::int64_t> dims) {
  const bool same =
      t.dims().size() == dims.size() &&
      std::equal(dims.begin(), dims.end(), t.dims().begin(),
                 [](std::int64_t want, std::int64_t got) { return want == -1 || want == got; });
  JAMBA_CHECK(same, "{}: expected dims [{}], got {}", what, fmt::join(dims, ", "), t.describe());
}

}  // namespace

void expect_tensor(const char* what, const Tensor& t, DType dtype,
                   std::initializer_list<std::int64_t> dims) {
  JAMBA_CHECK(t.present() && t.dtype() == dtype, "{}: expected {}, got {}", what, dtype_name(dtype),
              t.describe());
  expect_dims(what, t, dims);
}

void expect_float_tensor(const char* what, const Tensor& t,
                         std::initializer_list<std::int64_t> dims) {
  JAMBA_CHECK(t.present() && (t.dtype() == DType::f32 || t.dtype() == DType::bf16),
              "{}: expected float32 or bfloat16, got {}", what, t.describe());
  expect_dims(what, t, dims);
}

}  // namespace jamba
