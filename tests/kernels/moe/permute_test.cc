#include "kernels/moe/permute.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

struct Permutation {
  GuardedTensor row_of_slot, slot_of_row;
  std::vector<std::int64_t> offsets;

  Permutation(const std::vector<double>& index, std::int64_t k, std::int64_t experts,
              std::int64_t capacity = 0)
      : row_of_slot(DType::i32, {std::ssize(index)}),
        slot_of_row(DType::i32, {std::ssize(index)}),
        offsets(static_cast<std::size_t>(experts + 1), -7) {
    const GuardedTensor chosen(DType::i32, {std::ssize(index) / k, k}, index);
    Stream stream = test::make_stream(2);
    build_permutation(stream, row_of_slot.tensor(), slot_of_row.tensor(), offsets, chosen.tensor(),
                      capacity);
  }
  std::int64_t num_rows() const { return offsets.back(); }
};

TEST(BuildPermutation, SortsByExpertAndKeepsTheOrderOfTokens) {
  const Permutation p({2, 0, 0, 2, 2, 1}, 2, 4);  // expert 3 starves
  EXPECT_EQ(p.slot_of_row.values(), (std::vector<double>{1, 2, 5, 0, 3, 4}));
  EXPECT_EQ(p.row_of_slot.values(), (std::vector<double>{3, 0, 1, 4, 5, 2}));
  EXPECT_EQ(p.offsets, (std::vector<std::int64_t>{0, 2, 3, 6, 6}));
}

TEST(BuildPermutation, TakesAllTokensToOneExpertAndNoTokens) {
  const Permutation all({1, 1, 1}, 1, 3);
  EXPECT_EQ(all.slot_of_row.values(), (std::vector<double>{0, 1, 2}));
  EXPECT_EQ(all.offsets, (std::vector<std::int64_t>{0, 0, 3, 3}));
  EXPECT_EQ(Permutation({}, 1, 3).offsets, (std::vector<std::int64_t>{0, 0, 0, 0}));
}

TEST(BuildPermutation, DropsTheLastCopiesOfAFullExpert) {
  const Permutation p({2, 0, 0, 2, 2, 1, 0, 2}, 2, 4, 2);
  EXPECT_EQ(p.row_of_slot.values(), (std::vector<double>{3, 0, 1, 4, -1, 2, -1, -1}));
  EXPECT_EQ(p.offsets, (std::vector<std::int64_t>{0, 2, 3, 5, 5}));
  std::vector<double> slots = p.slot_of_row.values();
  slots.resize(static_cast<std::size_t>(p.num_rows()));
  EXPECT_EQ(slots, (std::vector<double>{1, 2, 5, 0, 3}));
  EXPECT_TRUE(p.row_of_slot.guards_intact() && p.slot_of_row.guards_intact());
}

TEST(BuildPermutation, DropsNothingWhileEveryExpertHasRoom) {
  const std::vector<double> index = {2, 0, 0, 2, 2, 1};  // 3 copies for the fullest
  for (const std::int64_t capacity : {3, 4, 100}) {
    EXPECT_EQ(Permutation(index, 2, 4, capacity).row_of_slot.values(),
              Permutation(index, 2, 4).row_of_slot.values());
  }
}

TEST(BuildPermutation, RejectsWhatDoesNotFit) {
  if (!test::on_cuda()) {  // nobody reads them on the host there
    EXPECT_THROW(Permutation({0, 3}, 2, 3), LogicError);
    EXPECT_THROW(Permutation({0, -1}, 2, 3), LogicError);
  }
  EXPECT_THROW(Permutation({0, 1}, 2, 3, -1), LogicError);
  EXPECT_THROW(Permutation({0, 1}, 2, 0), LogicError);
}

/// How the rows of a case are routed.
struct Route {
  std::int64_t tokens, k, experts, model;
  std::int64_t capacity = 0;

  std::vector<double> index() const {
    // k different experts a token, some experts never chosen.
    std::vector<double> out;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t s = 0; s < k; ++s) {
        out.push_back(static_cast<double>((t * t + s) % experts));
      }
    }
    return out;
  }
  std::shared_ptr<Permutation> permutation() const {
    return std::make_shared<Permutation>(index(), k, experts, capacity);
  }
  std::string text() const {
    return fmt::format("[{}, {}] k {} capacity {}", tokens, model, k, capacity);
  }
};

OpCase permute_case(const Route& r, DType dtype) {
  const auto p = r.permutation();
  OpCase op;
  op.name = fmt::format("permute {} {}", dtype_name(dtype), r.text());
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {r.tokens, r.model},
                .values = test::normal_values(r.tokens * r.model, 1, "x"),
                .gradient_dtype = dtype}};
  op.outputs = {{.name = "rows", .dtype = dtype, .dims = {p->num_rows(), r.model}}};
  op.reference = [=](const std::vector<Values>& in) {
    const std::vector<double> slot_of_row = p->slot_of_row.values();
    Values rows;
    for (std::int64_t row = 0; row < p->num_rows(); ++row) {
      const std::int64_t token = static_cast<std::int64_t>(slot_of_row[row]) / r.k;
      for (std::int64_t i = 0; i < r.model; ++i) rows.push_back(in[0][token * r.model + i]);
    }
    return std::vector<Values>{rows};
  };
  op.forward = [=](Stream& s, Arena&, auto in, auto out) {
    permute_forward(s, out[0], in[0], p->slot_of_row.tensor(), r.k);
  };
  op.backward = [=](Stream& s, Arena&, auto, auto, auto dout, auto din) {
    permute_backward(s, din[0], dout[0], p->row_of_slot.tensor(), r.k);
  };
  return op;
}

OpCase permute_weights_case(const Route& r) {
  const auto p = r.permutation();
  OpCase op;
  op.name = "permute_weights " + r.text();
  op.inputs = {{.name = "weight",
                .dims = {r.tokens, r.k},
                .values = test::normal_values(r.tokens * r.k, 1, "weight")}};
  op.outputs = {{.name = "row_weight", .dims = {p->num_rows()}}};
  op.reference = [=](const std::vector<Values>& in) {
    const std::vector<double> slot_of_row = p->slot_of_row.values();
    Values out;
    for (std::int64_t row = 0; row < p->num_rows(); ++row) {
      out.push_back(in[0][static_cast<std::size_t>(slot_of_row[row])]);
    }
    return std::vector<Values>{out};
  };
  op.forward = [=](Stream& s, Arena&, auto in, auto out) {
    permute_weights_forward(s, out[0], in[0], p->slot_of_row.tensor());
  };
  op.backward = [=](Stream& s, Arena&, auto, auto, auto dout, auto din) {
    permute_weights_backward(s, din[0], dout[0], p->row_of_slot.tensor());
  };
  return op;
}

const std::vector<Route> kRoutes = {
    {.tokens = 1, .k = 1, .experts = 1, .model = 1},
    {.tokens = 9, .k = 2, .experts = 5, .model = 19},
    {.tokens = 9, .k = 2, .experts = 5, .model = 19, .capacity = 3},
    {.tokens = 7, .k = 3, .experts = 3, .model = 5, .capacity = 1},  // tokens without a row
    {.tokens = 35, .k = 3, .experts = 3, .model = 8}};

TEST(Permute, MatchesReferenceForwardAndBackward) {
  for (const Route& route : kRoutes) {
    check_op(permute_case(route, DType::f32));
    check_op(permute_case(route, DType::bf16));
  }
}

TEST(PermuteWeights, MatchesReferenceForwardAndBackward) {
  for (const Route& route : kRoutes) check_op(permute_weights_case(route));
}

TEST(Permute, AddsGradientsInFloat32) {
  const Permutation p({0, 1, 2}, 3, 3);
  const GuardedTensor drows(DType::bf16, {3, 1}, {256, 1, 1}), dx(DType::bf16, {1, 1});
  Stream stream = test::make_stream(1);
  permute_backward(stream, dx.tensor(), drows.tensor(), p.row_of_slot.tensor(), 3);
  EXPECT_EQ(dx.values(), (std::vector<double>{258}));  // 256 + 1 is no bfloat16
}

TEST(Permute, GivesDroppedCopiesNoGradient) {
  const Permutation p({0, 0, 1}, 1, 2, 1);
  const GuardedTensor memory(DType::f32, {3, 1}, {100, 1, 2}), dx(DType::f32, {3, 1});
  const Tensor drows = memory.tensor().slice(1, 2);  // where row -1 would lie, there is something
  Stream stream = test::make_stream(1);
  permute_backward(stream, dx.tensor(), drows, p.row_of_slot.tensor(), 1);
  EXPECT_EQ(dx.values(), (std::vector<double>{1, 0, 2}));
  const GuardedTensor dweight(DType::f32, {3, 1});
  permute_weights_backward(stream, dweight.tensor(), drows.view({2}), p.row_of_slot.tensor());
  EXPECT_EQ(dweight.values(), (std::vector<double>{1, 0, 2}));
}

TEST(Permute, AcceptsNoRows) {
  const GuardedTensor x(DType::f32, {2, 3}), rows(DType::f32, {0, 3}), row_weight(DType::f32, {0});
  const GuardedTensor slots(DType::i32, {4}), weight(DType::f32, {2, 2});
  const GuardedTensor dropped(DType::i32, {4}, {-1, -1, -1, -1});
  Stream stream = test::make_stream(2);
  permute_forward(stream, rows.tensor(), x.tensor(), slots.tensor(), 2);
  permute_weights_forward(stream, row_weight.tensor(), weight.tensor(), slots.tensor());
  permute_backward(stream, x.tensor(), rows.tensor(), dropped.tensor(), 2);
  permute_weights_backward(stream, weight.tensor(), row_weight.tensor(), dropped.tensor());
  EXPECT_EQ(x.values(), std::vector<double>(6, 0.0));
  EXPECT_EQ(weight.values(), std::vector<double>(4, 0.0));
}

TEST(Permute, RejectsWhatDoesNotFit) {
  const GuardedTensor x(DType::f32, {2, 3}), rows(DType::f32, {4, 3}), wide(DType::f32, {4, 5});
  const GuardedTensor three(DType::i32, {3}, {0, 1, 2}), four(DType::i32, {4}, {0, 1, 2, 3});
  const GuardedTensor weight(DType::f32, {2, 2}), row_weight(DType::f32, {4});
  Stream stream = test::make_stream(1);
  const auto forward = [&](const GuardedTensor& to, const GuardedTensor& slots, std::int64_t k) {
    permute_forward(stream, to.tensor(), x.tensor(), slots.tensor(), k);
  };
  const auto backward = [&](const GuardedTensor& from, const GuardedTensor& slots) {
    permute_backward(stream, x.tensor(), from.tensor(), slots.tensor(), 2);
  };
  EXPECT_NO_THROW(forward(rows, four, 2));
  EXPECT_THROW(forward(rows, three, 2), LogicError);  // more rows than slots
  EXPECT_THROW(forward(wide, four, 2), LogicError);
  EXPECT_THROW(forward(rows, four, 0), LogicError);
  EXPECT_THROW(backward(rows, three), LogicError);
  EXPECT_THROW(backward(wide, four), LogicError);
  EXPECT_THROW(
      permute_weights_forward(stream, row_weight.tensor(), weight.tensor(), three.tensor()),
      LogicError);
  EXPECT_THROW(
      permute_weights_backward(stream, weight.tensor(), row_weight.tensor(), three.tensor()),
      LogicError);
}

}  // namespace
}  // namespace jamba
