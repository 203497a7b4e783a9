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

  Permutation(const std::vector<double>& index, std::int64_t k, std::int64_t experts)
      : row_of_slot(DType::i32, {std::ssize(index)}),
        slot_of_row(DType::i32, {std::ssize(index)}),
        offsets(static_cast<std::size_t>(experts + 1), -7) {
    const GuardedTensor chosen(DType::i32, {std::ssize(index) / k, k}, index);
    Stream stream = Stream::cpu(2);
    build_permutation(stream, row_of_slot.tensor(), slot_of_row.tensor(), offsets, chosen.tensor());
  }
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

TEST(BuildPermutation, RejectsExpertsThatDoNotExist) {
  EXPECT_THROW(Permutation({0, 3}, 2, 3), LogicError);
  EXPECT_THROW(Permutation({0, -1}, 2, 3), LogicError);
}

/// How the rows of a case are routed.
struct Route {
  std::int64_t tokens, k, experts, model;

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
};

OpCase permute_case(const Route& r, DType dtype) {
  const auto p = std::make_shared<Permutation>(r.index(), r.k, r.experts);
  OpCase op;
  op.name = fmt::format("permute {} [{}, {}] k {}", dtype_name(dtype), r.tokens, r.model, r.k);
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {r.tokens, r.model},
                .values = test::normal_values(r.tokens * r.model, 1, "x"),
                .gradient_dtype = dtype}};
  op.outputs = {{.name = "rows", .dtype = dtype, .dims = {r.tokens * r.k, r.model}}};
  op.reference = [=](const std::vector<Values>& in) {
    Values rows;
    for (const double slot : p->slot_of_row.values()) {
      const std::int64_t token = static_cast<std::int64_t>(slot) / r.k;
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

OpCase combine_case(const Route& r, DType dtype) {
  const auto p = std::make_shared<Permutation>(r.index(), r.k, r.experts);
  OpCase op;
  op.name = fmt::format("combine {} [{}, {}] k {}", dtype_name(dtype), r.tokens, r.model, r.k);
  op.inputs = {{.name = "rows",
                .dtype = dtype,
                .dims = {r.tokens * r.k, r.model},
                .values = test::normal_values(r.tokens * r.k * r.model, 1, "rows"),
                .gradient_dtype = dtype},
               {.name = "weight",
                .dims = {r.tokens, r.k},
                .values = test::normal_values(r.tokens * r.k, 2, "weight")}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {r.tokens, r.model}}};
  op.reference = [=](const std::vector<Values>& in) {
    const std::vector<double> row_of_slot = p->row_of_slot.values();
    Values y;
    for (std::int64_t t = 0; t < r.tokens; ++t) {
      for (std::int64_t i = 0; i < r.model; ++i) {
        Scalar sum = 0;
        for (std::int64_t slot = t * r.k; slot < (t + 1) * r.k; ++slot) {
          const auto row = static_cast<std::int64_t>(row_of_slot[slot]);
          sum += in[1][slot] * in[0][row * r.model + i];
        }
        y.push_back(sum);
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [=](Stream& s, Arena&, auto in, auto out) {
    combine_forward(s, out[0], in[0], p->row_of_slot.tensor(), in[1]);
  };
  op.backward = [=](Stream& s, Arena&, auto in, auto, auto dout, auto din) {
    combine_backward(s, din[0], din[1], dout[0], in[0], p->row_of_slot.tensor(), in[1]);
  };
  return op;
}

const std::vector<Route> kRoutes = {{.tokens = 1, .k = 1, .experts = 1, .model = 1},
                                    {.tokens = 9, .k = 2, .experts = 5, .model = 19},
                                    {.tokens = 35, .k = 3, .experts = 3, .model = 8}};

TEST(Permute, MatchesReferenceForwardAndBackward) {
  for (const Route& route : kRoutes) {
    check_op(permute_case(route, DType::f32));
    check_op(permute_case(route, DType::bf16));
  }
}

TEST(Combine, MatchesReferenceForwardAndBackward) {
  for (const Route& route : kRoutes) {
    check_op(combine_case(route, DType::f32));
    check_op(combine_case(route, DType::bf16));
  }
}

TEST(Combine, LetsTheRowsGradientReplaceTheRows) {
  const Route r{.tokens = 9, .k = 2, .experts = 4, .model = 21};
  const Permutation p(r.index(), r.k, r.experts);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const GuardedTensor rows(dtype, {18, 21}, test::normal_values(18 * 21, 1, "rows"));
    const GuardedTensor dy(dtype, {9, 21}, test::normal_values(9 * 21, 1, "dy"));
    const GuardedTensor weight(DType::f32, {9, 2}, test::normal_values(18, 1, "weight"));
    const GuardedTensor drows(dtype, {18, 21}), dweight(DType::f32, {9, 2});
    const GuardedTensor dweight_in_place(DType::f32, {9, 2});
    Stream stream = Stream::cpu(2);
    combine_backward(stream, drows.tensor(), dweight.tensor(), dy.tensor(), rows.tensor(),
                     p.row_of_slot.tensor(), weight.tensor());
    combine_backward(stream, rows.tensor(), dweight_in_place.tensor(), dy.tensor(), rows.tensor(),
                     p.row_of_slot.tensor(), weight.tensor());
    EXPECT_EQ(rows.values(), drows.values());
    EXPECT_EQ(dweight_in_place.values(), dweight.values());
  }
}

TEST(Permute, RejectsRowsThatAreNotTokensTimesK) {
  const GuardedTensor x(DType::f32, {2, 3}), rows(DType::f32, {3, 3});
  const GuardedTensor slots(DType::i32, {3}, {0, 1, 2}), weight(DType::f32, {2, 2});
  Stream stream = Stream::cpu(1);
  EXPECT_THROW(permute_forward(stream, rows.tensor(), x.tensor(), slots.tensor(), 2), LogicError);
  EXPECT_THROW(permute_backward(stream, x.tensor(), rows.tensor(), slots.tensor(), 2), LogicError);
  EXPECT_THROW(combine_forward(stream, x.tensor(), rows.tensor(), slots.tensor(), weight.tensor()),
               LogicError);
}

}  // namespace
}  // namespace jamba
