#include "kernels/pointwise/pointwise.h"

#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/host_view.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(zero);
JAMBA_DECLARE_BACKENDS(cast);
JAMBA_DECLARE_BACKENDS(add);
JAMBA_DECLARE_BACKENDS(scale);
JAMBA_DECLARE_BACKENDS(add_scaled);
namespace {
using AddSquares = void(Stream&, Arena&, Tensor, Tensor);  // the overload that backends have
}
namespace cpu {
AddSquares add_squares;
}
namespace cuda {
JAMBA_WEAK AddSquares add_squares;
}

namespace {

void expect_float(const char* what, const Tensor& t) {
  JAMBA_CHECK(t.present() && (t.dtype() == DType::f32 || t.dtype() == DType::bf16),
              "{} must be float32 or bfloat16, got {}", what, t.describe());
}

void expect_same_dims(const Tensor& y, const Tensor& x) {
  expect_float("y", y);
  expect_float("x", x);
  JAMBA_CHECK(std::ranges::equal(y.dims(), x.dims()), "y {} and x {} differ in dims", y.describe(),
              x.describe());
}

}  // namespace

void zero(Stream& stream, Tensor x) {
  JAMBA_CHECK(x.present(), "x is absent");
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(zero, stream, x);
}

void cast(Stream& stream, Tensor y, Tensor x) {
  expect_same_dims(y, x);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cast, stream, y, x);
}

void add(Stream& stream, Tensor y, Tensor x) {
  expect_same_dims(y, x);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(add, stream, y, x);
}

void scale(Stream& stream, Tensor x, float factor) {
  expect_float("x", x);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(scale, stream, x, factor);
}

void add_scaled(Stream& stream, Tensor y, Tensor x, float factor) {
  expect_same_dims(y, x);
  JAMBA_CHECK(y.dtype() == x.dtype(), "y {} and x {} differ in dtype", y.describe(), x.describe());
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(add_scaled, stream, y, x, factor);
}

void add_squares(Stream& stream, Arena& scratch, Tensor words, Tensor x) {
  expect_float("x", x);
  expect_tensor("words", words, DType::i64, {std::int64_t{ExactSum::kNumWords}});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(add_squares, stream, scratch, words, x);
}

void add_words(Stream& stream, ExactSum& sum, Tensor words) {
  expect_tensor("words", words, DType::i64, {std::int64_t{ExactSum::kNumWords}});
  const HostView view(stream, words, HostAccess::read);
  for (std::size_t i = 0; i < ExactSum::kNumWords; ++i)
    sum.words()[i] += view.ptr<std::int64_t>()[i];
}

void add_squares(Stream& stream, Arena& scratch, ExactSum& sum, Tensor x) {
  const ArenaScope scope(scratch);
  const Tensor words = scratch.allocate(DType::i64, {std::int64_t{ExactSum::kNumWords}});
  zero(stream, words);
  add_squares(stream, scratch, words, x);
  add_words(stream, sum, words);
}

double sum_of_squares(Stream& stream, Arena& scratch, Tensor x) {
  ExactSum sum;
  add_squares(stream, scratch, sum, x);
  return sum.value();
}

}  // namespace jamba
