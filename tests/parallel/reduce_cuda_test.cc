#include "parallel/comm/reduce_cuda.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/reduce.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using Doubles = std::vector<double>;

/// The sum of `ranks` parts of n elements on the device, and what the CPU makes of the same parts.
void expect_same_bits(DType dtype, int ranks, std::int64_t n, int rank, std::int64_t offset = 0) {
  SCOPED_TRACE(
      fmt::format("{} of {} ranks, {} {}s from {}", rank, ranks, n, dtype_name(dtype), offset));
  const Doubles values = test::normal_values(ranks * n, 3, "parts");
  const auto begin = values.begin() + rank * n;
  Doubles received = values;
  for (std::int64_t i = 0; i < n; ++i) received[rank * n + i] = 1e30;  // nobody may read it
  // offset: an own part whose address allows no wide loads
  Doubles mine(static_cast<std::size_t>(offset + n));
  std::copy_n(begin, n, mine.begin() + offset);
  const GuardedTensor parts(dtype, {ranks * n}, received);
  const GuardedTensor own(dtype, {offset + n}, mine), out(dtype, {n});
  Stream stream = test::make_stream();
  const auto own_data =
      static_cast<const std::byte*>(own.tensor().raw()) + offset * dtype_bytes(dtype);
  cuda::reduce_parts(stream, dtype, out.tensor().raw(), parts.tensor().raw(), own_data, rank, ranks,
                     n);
  stream.synchronize();

  Buffer all(ranks * n * dtype_bytes(dtype)), want(n * dtype_bytes(dtype));
  const Tensor whole = all.tensor(dtype, {ranks * n});
  test::from_doubles(whole, values);
  std::vector<const std::byte*> each;
  for (int r = 0; r < ranks; ++r)
    each.push_back(static_cast<const std::byte*>(whole.slice(r * n, n).raw()));
  Stream host = Stream::cpu(1);
  reduce_parts(host, dtype, ReduceOp::sum, static_cast<std::byte*>(want.data()), each, n);
  EXPECT_EQ(out.values(), test::to_doubles(want.tensor(dtype, {n})));
  EXPECT_TRUE(out.guards_intact());
}

class ReduceParts : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::on_cuda()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(ReduceParts, GivesTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int ranks : {2, 3, 4, 7, 16}) expect_same_bits(dtype, ranks, 24, ranks / 2);
  }
}

TEST_F(ReduceParts, OfAnyNumberOfElementsAtAnyPlace) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t n : {1, 3, 255, 256, 1024, 1025}) expect_same_bits(dtype, 3, n, 0);
    expect_same_bits(dtype, 3, 64, 1, 1);
  }
}

TEST_F(ReduceParts, RefusesMoreRanksThanItHasLevelsFor) {
  Stream stream = test::make_stream();
  EXPECT_THROW(cuda::reduce_parts(stream, DType::f32, nullptr, nullptr, nullptr, 0, 1024, 1),
               LogicError);
}

}  // namespace
}  // namespace jamba
