#include "kernels/moe/pack_rows.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

/// Tokens with k numbers each, and which of the tokens * k copies travel, in what order.
struct Fixture {
  static constexpr std::int64_t kTokens = 40, kCopies = 70;
  DType dtype;
  std::int64_t model, k;
  GuardedTensor rows{dtype, {kTokens, model}, test::normal_values(kTokens* model, 1, "rows")};
  GuardedTensor weight{DType::f32, {kTokens * k}, test::normal_values(kTokens* k, 1, "weight")};
  GuardedTensor index{DType::i32,
                      {kCopies + 3},  // more than needed
                      test::integer_values(kCopies + 3, 1, "index", 0, kTokens* k)};
  GuardedTensor packed{DType::u8, {kCopies, packed_row_bytes(dtype, model)}};

  void pack(int threads = 2) const {
    Stream stream = test::make_stream(threads);
    pack_rows(stream, packed.tensor(), rows.tensor(), weight.tensor(), index.tensor(), k);
    EXPECT_TRUE(packed.guards_intact());
  }
  std::vector<double> places = index.values();
  std::int64_t copy(std::int64_t i) const { return static_cast<std::int64_t>(places[i]); }
};

template <class F>
void for_each_fixture(F&& f) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t model : {1, 2, 5, 16, 33}) {  // odd: floats at odd multiples of 2 bytes
      for (const std::int64_t k : {1, 2, 3}) {
        SCOPED_TRACE(fmt::format("{} [{}] k {}", dtype_name(dtype), model, k));
        f(Fixture{dtype, model, k});
      }
    }
  }
}

TEST(PackRows, LaysANumberBehindEachRow) {
  EXPECT_EQ(packed_row_bytes(DType::f32, 5), 24);
  EXPECT_EQ(packed_row_bytes(DType::bf16, 5), 14);
  for_each_fixture([](const Fixture& f) {
    for (const int threads : {1, 2, 3}) {
      f.pack(threads);
      const std::int64_t row_bytes = f.model * dtype_bytes(f.dtype);
      const Buffer packed = test::to_host(f.packed.tensor()), rows = test::to_host(f.rows.tensor());
      const Buffer weight = test::to_host(f.weight.tensor());
      for (std::int64_t i = 0; i < Fixture::kCopies; ++i) {
        const auto* const got = static_cast<const char*>(packed.data()) + i * (row_bytes + 4);
        const auto* const row = static_cast<const char*>(rows.data()) + f.copy(i) / f.k * row_bytes;
        const auto* const number = static_cast<const char*>(weight.data()) + f.copy(i) * 4;
        EXPECT_EQ(std::memcmp(got, row, static_cast<std::size_t>(row_bytes)), 0);
        EXPECT_EQ(std::memcmp(got + row_bytes, number, sizeof(float)), 0);
      }
    }
  });
}

TEST(UnpackRows, GivesBackWhatWasPacked) {
  for_each_fixture([](const Fixture& f) {
    f.pack();
    const GuardedTensor rows(f.dtype, {Fixture::kCopies, f.model});
    const GuardedTensor weight(DType::f32, {Fixture::kCopies});
    const std::vector<double> all = f.rows.values(), numbers = f.weight.values();
    for (const int threads : {1, 2, 3}) {
      Stream stream = test::make_stream(threads);
      unpack_rows(stream, rows.tensor(), weight.tensor(), f.packed.tensor(), {});
      EXPECT_TRUE(rows.guards_intact() && weight.guards_intact());
      std::vector<double> want_rows, want_weight;
      for (std::int64_t i = 0; i < Fixture::kCopies; ++i) {
        const auto row = all.begin() + f.copy(i) / f.k * f.model;
        want_rows.insert(want_rows.end(), row, row + f.model);
        want_weight.push_back(numbers[f.copy(i)]);
      }
      EXPECT_EQ(rows.values(), want_rows);
      EXPECT_EQ(weight.values(), want_weight);
    }
  });
}

TEST(UnpackRows, FollowsAnIndex) {
  for_each_fixture([](const Fixture& f) {
    f.pack();
    const GuardedTensor in_order(f.dtype, {Fixture::kCopies, f.model}), rows(f.dtype, {3, f.model});
    const GuardedTensor numbers(DType::f32, {Fixture::kCopies}), weight(DType::f32, {3});
    const std::vector<std::int64_t> places = {69, 0, 31};
    const GuardedTensor index(DType::i32, {4}, {69, 0, 31, -5});  // the last one is not needed
    Stream stream = test::make_stream(1);
    unpack_rows(stream, in_order.tensor(), numbers.tensor(), f.packed.tensor(), {});
    unpack_rows(stream, rows.tensor(), weight.tensor(), f.packed.tensor(), index.tensor());
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(test::to_doubles(rows.tensor().slice(i, 1)),
                test::to_doubles(in_order.tensor().slice(places[i], 1)));
      EXPECT_EQ(weight.values()[i], numbers.values()[places[i]]);
    }
    EXPECT_TRUE(rows.guards_intact() && weight.guards_intact());
  });
}

TEST(PackRows, AcceptsNoRows) {
  const GuardedTensor packed(DType::u8, {0, 10}), rows(DType::bf16, {0, 3}),
      weight(DType::f32, {0});
  const GuardedTensor index(DType::i32, {0});
  Stream stream = test::make_stream(2);
  pack_rows(stream, packed.tensor(), rows.tensor(), weight.tensor(), index.tensor(), 2);
  unpack_rows(stream, rows.tensor(), weight.tensor(), packed.tensor(), {});
  EXPECT_THROW(
      pack_rows(stream, packed.tensor(), rows.tensor(), weight.tensor(), index.tensor(), 0),
      LogicError);
  EXPECT_TRUE(packed.guards_intact() && rows.guards_intact() && weight.guards_intact());
}

TEST(PackRows, RejectsWhatDoesNotFit) {
  const GuardedTensor packed(DType::u8, {2, 10}), narrow(DType::u8, {2, 9});
  const GuardedTensor rows(DType::bf16, {2, 3}), three_rows(DType::bf16, {3, 3});
  const GuardedTensor weight(DType::f32, {2}), three_weights(DType::f32, {3});
  const GuardedTensor index(DType::i32, {2}, {0, 1}), one(DType::i32, {1}, {0});
  Stream stream = test::make_stream(1);
  const auto pack = [&](const GuardedTensor& to, const GuardedTensor& number, Tensor places,
                        std::int64_t k) {
    pack_rows(stream, to.tensor(), rows.tensor(), number.tensor(), places, k);
  };
  EXPECT_NO_THROW(pack(packed, weight, index.tensor(), 1));
  EXPECT_THROW(pack(narrow, weight, index.tensor(), 1), LogicError);
  EXPECT_THROW(pack(packed, weight, one.tensor(), 1), LogicError);
  EXPECT_THROW(pack(packed, weight, {}, 1), LogicError);
  EXPECT_THROW(pack(packed, weight, index.tensor(), 0), LogicError);
  EXPECT_THROW(pack(packed, three_weights, index.tensor(), 1), LogicError);
  const auto unpack = [&](const GuardedTensor& to, const GuardedTensor& number,
                          const GuardedTensor& from, Tensor places) {
    unpack_rows(stream, to.tensor(), number.tensor(), from.tensor(), places);
  };
  EXPECT_NO_THROW(unpack(rows, weight, packed, {}));
  EXPECT_THROW(unpack(rows, weight, narrow, {}), LogicError);
  EXPECT_THROW(unpack(rows, three_weights, packed, {}), LogicError);
  EXPECT_THROW(unpack(three_rows, three_weights, packed, {}), LogicError);
  EXPECT_THROW(unpack(rows, weight, packed, one.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba
