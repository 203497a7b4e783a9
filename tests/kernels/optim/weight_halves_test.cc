#include "kernels/optim/weight_halves.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/core/host_view.h"
#include "kernels/core/rng.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

struct Halves {
  GuardedTensor weight, value, rest, joined;
  explicit Halves(const std::vector<std::uint32_t>& bits)
      : weight(DType::f32, {std::ssize(bits)}),
        value(DType::bf16, {std::ssize(bits)}),
        rest(DType::u16, {std::ssize(bits)}),
        joined(DType::f32, {std::ssize(bits)}) {
    Stream stream = test::make_stream(2);
    const HostView to(stream, weight.tensor(), HostAccess::write);
    for (std::size_t i = 0; i < bits.size(); ++i)
      to.ptr<float>()[i] = std::bit_cast<float>(bits[i]);
    to.store();
    split_weight(stream, value.tensor(), rest.tensor(), weight.tensor());
    join_weight(stream, joined.tensor(), value.tensor(), rest.tensor());
  }
};

/// Every upper half with lower halves at the edges of rounding, and random ones.
std::vector<std::uint32_t> interesting_bits() {
  std::vector<std::uint32_t> bits;
  const CounterRng rng(1, "halves");
  for (std::uint32_t high = 0; high < 0x10000; ++high) {
    const auto random = static_cast<std::uint32_t>(rng.uniform(high) * 65536);
    for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, random}) {
      bits.push_back(high << 16 | low);
    }
  }
  return bits;
}

TEST(WeightHalves, JoinToEveryBitOfTheWeight) {
  const std::vector<std::uint32_t> bits = interesting_bits();
  const Halves halves(bits);
  std::int64_t wrong = 0;
  const Buffer joined = test::to_host(halves.joined.tensor());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    wrong += std::bit_cast<std::uint32_t>(static_cast<const float*>(joined.data())[i]) != bits[i];
  }
  EXPECT_EQ(wrong, 0) << "of " << bits.size();
}

TEST(WeightHalves, TheValueIsTheNearestBfloat16) {
  const std::vector<std::uint32_t> bits = interesting_bits();
  const Halves halves(bits);
  const Buffer values = test::to_host(halves.value.tensor());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const auto weight = std::bit_cast<float>(bits[i]);
    const auto value = static_cast<float>(static_cast<const bfloat16*>(values.data())[i]);
    if (std::isnan(weight)) {
      const std::uint32_t mantissa = bits[i] & 0x7fffffu;
      if (mantissa >= 0x400000u && mantissa < 0x7f8000u) {
        EXPECT_TRUE(std::isnan(value)) << bits[i];
      }
      continue;
    }
    // In bits: comparing floats would take subnormal ones for zero.
    const auto got = std::bit_cast<std::uint32_t>(value);
    if ((bits[i] & 0xffffu) == 0x8000u) {
      EXPECT_EQ(got, bits[i] + 0x8000u);
    } else {
      EXPECT_EQ(got, std::bit_cast<std::uint32_t>(static_cast<float>(bfloat16(weight)))) << bits[i];
    }
  }
}

TEST(WeightHalves, StayInsideTheirTensors) {
  for (const std::int64_t n : {1, 3, 8, 17, 33}) {
    const Halves halves(std::vector<std::uint32_t>(static_cast<std::size_t>(n), 0x3f812345u));
    EXPECT_TRUE(halves.value.guards_intact() && halves.rest.guards_intact() &&
                halves.joined.guards_intact())
        << n;
    EXPECT_EQ(halves.joined.values(), halves.weight.values());
  }
}

TEST(WeightHalves, RejectsOtherDtypesAndShapes) {
  const GuardedTensor w(DType::f32, {4}), value(DType::bf16, {4}), rest(DType::u16, {4});
  const GuardedTensor longer(DType::u16, {5});
  Stream s = test::make_stream(1);
  EXPECT_THROW(split_weight(s, value.tensor(), longer.tensor(), w.tensor()), LogicError);
  EXPECT_THROW(split_weight(s, w.tensor(), rest.tensor(), w.tensor()), LogicError);
  EXPECT_THROW(join_weight(s, value.tensor(), value.tensor(), rest.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba
