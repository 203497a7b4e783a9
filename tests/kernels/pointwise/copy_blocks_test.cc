#include "kernels/pointwise/copy_blocks.h"

#include <gtest/gtest.h>

#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

/// Copies between two layouts; the sizes of the tensors in elements.
struct Case {
  BlockLayout out, x;
  BlockCount count;
  std::int64_t out_numel, x_numel;
};

const std::vector<Case> kCases = {{{}, {}, {1, 1, 1}, 1, 1},
                                  {{2, 0, 0}, {1, 0, 0}, {1, 1, 7}, 11, 8},
                                  // The first two dims of [3, 5, 7] change places.
                                  {{0, 7, 21}, {0, 35, 7}, {3, 5, 7}, 105, 105},
                                  // Columns 1 to 3 of a matrix of width 5, repeated; gaps stay.
                                  {{3, 20, 4}, {1, 0, 5}, {2, 4, 3}, 40, 20},
                                  // Longer than a unit of parallel work, and many short ones.
                                  {{0, 20001, 0}, {1, 20002, 0}, {3, 1, 20001}, 60003, 60007},
                                  {{1, 3, 30000}, {0, 2, 20000}, {10000, 2, 1}, 60001, 40000}};

/// What out holds afterwards, from plain loops.
std::vector<double> want(const Case& c, std::vector<double> out, const std::vector<double>& x,
                         Write write) {
  for (std::int64_t i = 0; i < c.count.outer; ++i) {
    for (std::int64_t j = 0; j < c.count.inner; ++j) {
      for (std::int64_t e = 0; e < c.count.width; ++e) {
        const auto place = [&](const BlockLayout& layout) {
          return layout.begin + i * layout.outer_stride + j * layout.inner_stride + e;
        };
        double& to = out[place(c.out)];
        to = x[place(c.x)] + (write == Write::accumulate ? to : 0);
      }
    }
  }
  return out;
}

void check(const Case& c, DType dtype, Write write) {
  // Small integers: exact in every dtype, and so are their sums.
  const std::vector<double> before = test::integer_values(c.out_numel, 1, "out", 0, 100);
  const GuardedTensor x(dtype, {c.x_numel}, test::integer_values(c.x_numel, 1, "x", 0, 100));
  for (const int threads : {1, 2, 3}) {
    const GuardedTensor out(dtype, {c.out_numel}, before);
    Stream stream = test::make_stream(threads);
    copy_blocks(stream, out.tensor(), c.out, x.tensor(), c.x, c.count, write);
    EXPECT_TRUE(out.guards_intact());
    EXPECT_EQ(out.values(), want(c, before, x.values(), write))
        << dtype_name(dtype) << ", blocks " << c.count.outer << " x " << c.count.inner << " of "
        << c.count.width << ", " << threads << " threads";
  }
}

TEST(CopyBlocks, OverwritesInEveryDtype) {
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::i32, DType::i64, DType::u8}) {
      check(c, dtype, Write::overwrite);
    }
  }
}

TEST(CopyBlocks, Accumulates) {
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::f32, DType::bf16}) check(c, dtype, Write::accumulate);
  }
}

TEST(CopyBlocks, AddsInFloat32AndRoundsOnce) {
  const std::vector<double> a = test::normal_values(100, 1, "a"),
                            b = test::normal_values(100, 1, "b");
  const GuardedTensor out(DType::bf16, {100}, a), x(DType::bf16, {100}, b);
  std::vector<double> sum;
  for (std::size_t i = 0; i < 100; ++i) sum.push_back(out.values()[i] + x.values()[i]);
  Stream stream = test::make_stream(1);
  copy_blocks(stream, out.tensor(), {}, x.tensor(), {}, {1, 1, 100}, Write::accumulate);
  EXPECT_EQ(out.values(), GuardedTensor(DType::bf16, {100}, sum).values());
}

TEST(CopyBlocks, DoesNothingForACountOfZero) {
  const GuardedTensor out(DType::f32, {2}, {1, 2}), x(DType::f32, {2}, {3, 4});
  Stream stream = test::make_stream(2);
  for (const BlockCount count : {BlockCount{0, 1, 2}, BlockCount{1, 0, 2}, BlockCount{1, 1, 0}}) {
    for (const Write write : {Write::overwrite, Write::accumulate}) {
      copy_blocks(stream, out.tensor(), {}, x.tensor(), {}, count, write);
    }
  }
  EXPECT_EQ(out.values(), (std::vector<double>{1, 2}));
}

TEST(CopyBlocks, RejectsBlocksBeyondTheirTensors) {
  const GuardedTensor out(DType::f32, {4, 6}), x(DType::f32, {4, 6});
  Stream stream = test::make_stream(1);
  const auto run = [&](const BlockLayout& to, const BlockLayout& from, const BlockCount& count) {
    copy_blocks(stream, out.tensor(), to, x.tensor(), from, count);
  };
  const BlockLayout whole = {0, 12, 6};
  const BlockCount all = {2, 2, 6};
  EXPECT_NO_THROW(run(whole, whole, all));
  for (const BlockLayout& bad :
       {BlockLayout{1, 12, 6}, BlockLayout{0, 13, 6}, BlockLayout{0, 12, 7}, BlockLayout{-1, 12, 6},
        BlockLayout{12, -12, 6}, BlockLayout{12, 6, -6}}) {
    EXPECT_THROW(run(bad, whole, all), LogicError);
    EXPECT_THROW(run(whole, bad, all), LogicError);
  }
  EXPECT_THROW(run(whole, whole, {3, 2, 6}), LogicError);
  EXPECT_THROW(run(whole, whole, {2, 3, 6}), LogicError);
  EXPECT_THROW(run(whole, whole, {2, 2, 7}), LogicError);
}

TEST(CopyBlocks, RejectsDtypesThatDoNotFit) {
  const GuardedTensor f(DType::f32, {2}), i(DType::i32, {2}), l(DType::i64, {2});
  Stream stream = test::make_stream(1);
  const auto run = [&](Tensor to, Tensor from, Write write) {
    copy_blocks(stream, to, {}, from, {}, {1, 1, 2}, write);
  };
  EXPECT_THROW(run(f.tensor(), i.tensor(), Write::overwrite), LogicError);
  EXPECT_THROW(run(f.tensor(), {}, Write::overwrite), LogicError);
  EXPECT_THROW(run({}, f.tensor(), Write::overwrite), LogicError);
  EXPECT_THROW(run(l.tensor(), l.tensor(), Write::accumulate), LogicError);
}

}  // namespace
}  // namespace jamba
