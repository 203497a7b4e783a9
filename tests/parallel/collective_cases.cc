#include "tests/parallel/collective_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/core/trace.h"

namespace jamba::test {

namespace {

/// Empty, one, odd, and more than one piece of a reduction.
constexpr std::int64_t kLengths[] = {0, 1, 7, 1000, 65536 + 3};

std::vector<float> rank_values(int rank, std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = rank_value(rank, i);
  return values;
}

Tensor view(std::vector<float>& values) {
  return Tensor(values.data(), DType::f32, {static_cast<std::int64_t>(values.size())});
}

/// Every element within a few roundings of the sum in double.
void expect_sums(const std::vector<float>& got, int size) {
  std::int64_t num_wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double sum = 0;
    double magnitude = 0;
    for (int rank = 0; rank < size; ++rank) {
      const double value = rank_value(rank, static_cast<std::int64_t>(i));
      sum += value;
      magnitude += std::abs(value);
    }
    if (!(std::abs(got[i] - sum) <= size * 6e-8 * magnitude)) ++num_wrong;
  }
  EXPECT_EQ(num_wrong, 0) << "of " << got.size();
}

/// FNV-1a of the bits.
std::int64_t hash(const std::vector<float>& values) {
  std::uint64_t result = 1469598103934665603u;
  for (const float value : values) {
    result = (result ^ std::bit_cast<std::uint32_t>(value)) * 1099511628211u;
  }
  return static_cast<std::int64_t>(result);
}

/// That `value` is the same on all ranks.
void expect_same_everywhere(Communicator& group, Stream& stream, std::int64_t value) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(group.size()));
  group.all_gather(stream, Tensor(all.data(), DType::i64, {group.size(), 1}),
                   Tensor(&value, DType::i64, {1}));
  for (const std::int64_t other : all) EXPECT_EQ(other, all[0]);
}

}  // namespace

float rank_value(int rank, std::int64_t index) {
  return std::sin(static_cast<float>(index % 1013) * 0.37f + static_cast<float>(rank) * 1.7f) *
         static_cast<float>(1 + (index + rank) % 5);
}

void check_all_reduce(Communicator& group) {
  Stream stream = Stream::cpu(1);
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    std::vector<float> sums = rank_values(group.rank(), n);
    group.all_reduce(stream, view(sums), ReduceOp::sum);
    expect_sums(sums, group.size());

    std::vector<float> maxima(static_cast<std::size_t>(n), -static_cast<float>(group.rank() + 1));
    group.all_reduce(stream, view(maxima), ReduceOp::max);
    EXPECT_TRUE(std::ranges::all_of(maxima, [](float x) { return x == -1; }));
  }
  // Exact where float and double are not, and on the side that int32 does not reach.
  const std::int64_t large = (std::int64_t{1} << 60) + 1;
  std::int64_t x[2] = {large / 8, -large - group.rank()};
  group.all_reduce(stream, Tensor(x, DType::i64, {1}), ReduceOp::sum);
  group.all_reduce(stream, Tensor(x + 1, DType::i64, {1}), ReduceOp::max);
  EXPECT_EQ(x[0], large / 8 * group.size());
  EXPECT_EQ(x[1], -large);
}

void check_start_all_reduce(Communicator& group) {
  Stream stream = Stream::cpu(1);
  std::vector<std::vector<float>> inputs;
  std::vector<PendingCollective> pending;
  for (const std::int64_t n : kLengths) inputs.push_back(rank_values(group.rank(), n));
  for (auto& input : inputs) {
    pending.push_back(group.start_all_reduce(stream, view(input), ReduceOp::sum));
    group.progress();
  }
  // Others may run while they are in flight.
  float flag = group.rank() == 0 ? 1 : 0;
  group.all_reduce(stream, Tensor(&flag, DType::f32, {1}), ReduceOp::max);
  EXPECT_EQ(flag, 1);
  for (int i = 0; i < 10; ++i) group.progress();
  for (auto& one : pending) one.wait();
  pending.clear();

  for (auto& input : inputs) {
    expect_sums(input, group.size());
    std::vector<float> blocking =
        rank_values(group.rank(), static_cast<std::int64_t>(input.size()));
    group.all_reduce(stream, view(blocking), ReduceOp::sum);
    EXPECT_EQ(hash(blocking), hash(input)) << "blocking and background sums differ";
  }
}

void check_all_gather(Communicator& group) {
  Stream stream = Stream::cpu(1);
  const int size = group.size();
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    std::vector<float> x = rank_values(group.rank(), n);
    std::vector<float> expected;
    for (int rank = 0; rank < size; ++rank) {
      const std::vector<float> part = rank_values(rank, n);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    std::vector<float> out(expected.size(), -1);
    const Tensor gathered(out.data(), DType::f32, {size, n});
    group.all_gather(stream, gathered, view(x));
    EXPECT_EQ(out, expected);

    std::ranges::fill(out, -1.0f);
    std::ranges::copy(x, out.begin() + group.rank() * n);
    group.all_gather(stream, gathered, gathered.slice(group.rank(), 1));
    EXPECT_EQ(out, expected) << "from its own slice";
  }
  std::vector<std::uint8_t> bytes(3 * static_cast<std::size_t>(size));
  std::uint8_t mine[3] = {static_cast<std::uint8_t>(group.rank()), 200, 7};
  group.all_gather(stream, Tensor(bytes.data(), DType::u8, {size, 3}),
                   Tensor(mine, DType::u8, {3}));
  EXPECT_EQ(bytes[bytes.size() - 3], size - 1);
  EXPECT_EQ(bytes.back(), 7);
}

void check_broadcast(Communicator& group) {
  Stream stream = Stream::cpu(1);
  for (int root = 0; root < group.size(); ++root) {
    for (const std::int64_t n : kLengths) {
      std::vector<float> x = rank_values(group.rank(), n);
      group.broadcast(stream, view(x), root);
      EXPECT_EQ(x, rank_values(root, n)) << n << " from rank " << root;
    }
    bfloat16 half(static_cast<float>(group.rank()));
    group.broadcast(stream, Tensor(&half, DType::bf16, {1}), root);
    EXPECT_EQ(static_cast<float>(half), static_cast<float>(root));
  }
}

void check_same_bits(Communicator& group) {
  Stream stream = Stream::cpu(1);
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    std::int64_t first = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
      std::vector<float> x = rank_values(group.rank(), n);
      group.all_reduce(stream, view(x), ReduceOp::sum);
      if (repeat == 0) first = hash(x);
      EXPECT_EQ(hash(x), first) << "in repeat " << repeat;
    }
    expect_same_everywhere(group, stream, first);
  }
}

void check_agree(Communicator& group) {
  const Agreement fine = agree(group, 0, "");
  EXPECT_EQ(fine.rank, -1);
  EXPECT_EQ(fine.exit_code, 0);
  EXPECT_EQ(fine.message, "");

  for (int lowest = 0; lowest < group.size(); ++lowest) {
    const bool fails = group.rank() >= lowest;
    const std::string message = fmt::format("rank {} has no disk", group.rank());
    const Agreement failed = agree(group, fails ? 70 + group.rank() : 0, fails ? message : "");
    EXPECT_EQ(failed.rank, lowest);
    EXPECT_EQ(failed.exit_code, 70 + lowest);
    EXPECT_EQ(failed.message, fmt::format("rank {} has no disk", lowest));
  }
  EXPECT_EQ(agree(group, 2, "").message, "");
}

void check_profile(Communicator& group) {
  Stream stream = Stream::cpu(1);
  const auto expect_counted = [&](const auto& operation) {
    stream.profile().reset();
    operation();
    EXPECT_GT(stream.profile()[Part::communication], 0);
  };
  std::vector<float> x(5);
  std::vector<float> out(5 * static_cast<std::size_t>(group.size()));
  expect_counted([&] { group.all_reduce(stream, view(x), ReduceOp::sum); });
  expect_counted([&] { group.broadcast(stream, view(x), 0); });
  expect_counted([&] { group.all_gather(stream, view(out), view(x)); });
}

void check_trace(Communicator& group) {
  Stream stream = Stream::cpu(1);
  Trace trace(100);
  std::vector<float> x(500'000);
  group.all_reduce(stream, view(x));
  EXPECT_TRUE(trace.events().empty());
  stream.profile().trace = &trace;
  PendingCollective pending = group.start_all_reduce(stream, view(x), ReduceOp::sum);
  float one = 1;
  group.broadcast(stream, Tensor(&one, DType::f32, {1}), 0);
  const std::int64_t waits_at = Trace::now_ns();
  pending.wait();

  std::vector<const Trace::Event*> waits;
  std::vector<const Trace::Event*> operations;
  for (const Trace::Event& event : trace.events()) {
    EXPECT_LE(event.begin_ns, event.end_ns);
    if (event.lane != Trace::kComputeLane) operations.push_back(&event);
    if (event.name.data() == "wait " + group.axis()) waits.push_back(&event);
  }
  ASSERT_EQ(operations.size(), group.size() == 1 ? 0u : 2u);
  ASSERT_EQ(waits.size(), operations.size());
  if (group.size() == 1) return;
  EXPECT_EQ(trace.lanes().at(1), "comm " + group.axis());
  EXPECT_STREQ(operations[0]->name.data(), "broadcast 4 B");
  EXPECT_STREQ(operations[1]->name.data(), "all_reduce 2.0 MB");
  EXPECT_LT(operations[1]->begin_ns, operations[0]->begin_ns);
  EXPECT_GE(waits[1]->begin_ns, waits_at);
  EXPECT_LE(operations[1]->end_ns, waits[1]->end_ns);
}

void check_refused_arguments(Communicator& group) {
  Stream stream = Stream::cpu(1);
  std::uint16_t data[16] = {};
  const Tensor half(data, DType::bf16, {4});
  EXPECT_THROW(group.all_reduce(stream, half, ReduceOp::max), LogicError);
  EXPECT_THROW(group.start_all_reduce(stream, half, ReduceOp::max), LogicError);
  EXPECT_THROW(group.all_reduce(stream, Tensor(data, DType::i32, {4})), LogicError);
  EXPECT_THROW(group.all_reduce(stream, Tensor(), ReduceOp::sum), LogicError);
  EXPECT_THROW(group.broadcast(stream, half, group.size()), LogicError);
  EXPECT_THROW(group.broadcast(stream, half, -1), LogicError);
  const Tensor short_out(data, DType::bf16, {group.size(), 3});
  EXPECT_THROW(group.all_gather(stream, short_out, half), LogicError);
  const Tensor other_dtype(data, DType::i32, {group.size(), 4});
  EXPECT_THROW(group.all_gather(stream, other_dtype, half), LogicError);
  const Tensor on_gpu(data, DType::f32, {4}, Device{DeviceKind::cuda, 0});
  EXPECT_THROW(group.broadcast(stream, on_gpu, 0), LogicError);  // nor the stream
}

}  // namespace jamba::test
