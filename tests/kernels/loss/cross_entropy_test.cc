#include "kernels/loss/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/host_view.h"
#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

struct Dims {
  std::int64_t tokens, vocab;
};

std::vector<Values> reference(const std::vector<Values>& in, const Dims& d) {
  Values loss, lse;
  for (std::int64_t t = 0; t < d.tokens; ++t) {
    const Scalar* row = in[0].data() + t * d.vocab;
    double max = row[0].real();
    for (std::int64_t i = 1; i < d.vocab; ++i) max = std::max(max, row[i].real());
    Scalar sum = 0;
    for (std::int64_t i = 0; i < d.vocab; ++i) sum += std::exp(row[i] - max);
    lse.push_back(max + std::log(sum));
    const auto label = static_cast<std::int32_t>(in[1][t].real());
    loss.push_back(label == kIgnoreLabel ? 0 : lse.back() - row[label]);
  }
  return {loss, lse};
}

/// Backward takes one scale for all tokens; the losses' gradients are therefore all equal to it.
constexpr float kScale = 0.25f;

/// Where each rank's columns begin, and where the last one's end.
using Edges = std::vector<std::int64_t>;

/// Copies columns [begin, begin + part.cols()) of `whole` to `part`, or back.
void copy_columns(Stream& stream, Tensor part, Tensor whole, std::int64_t begin,
                  bool back = false) {
  const std::int64_t n = part.cols(), cols = whole.cols();
  for (std::int64_t t = 0; t < whole.rows(); ++t) {
    const Tensor in_part = part.slice(t, 1).view({n});
    const Tensor in_whole = whole.view({whole.numel()}).slice(t * cols + begin, n);
    copy(stream, back ? in_whole : in_part, back ? in_part : in_whole);
  }
}

/// Forward of ranks that hold the columns between edges; edges.back() is the vocabulary's size.
void forward_in_parts(Stream& stream, Arena& arena, Tensor loss, Tensor lse, Tensor logits,
                      Tensor labels, const Edges& edges) {
  const auto ranks = static_cast<std::int64_t>(edges.size()) - 1;
  const Tensor stats = arena.allocate(DType::f32, {ranks, logits.rows(), kCrossEntropyStats});
  for (std::int64_t r = 0; r < ranks; ++r) {
    const Tensor part = arena.allocate(logits.dtype(), {logits.rows(), edges[r + 1] - edges[r]});
    copy_columns(stream, part, logits, edges[r]);
    cross_entropy_forward(stream, stats.slice(r, 1).view({logits.rows(), kCrossEntropyStats}), part,
                          labels, edges[r], edges.back());
  }
  cross_entropy_combine(stream, loss, lse, stats, labels);
}

void backward_in_parts(Stream& stream, Arena& arena, Tensor logits, Tensor lse, Tensor labels,
                       const Edges& edges, float scale) {
  for (std::size_t r = 0; r + 1 < edges.size(); ++r) {
    const Tensor part = arena.allocate(logits.dtype(), {logits.rows(), edges[r + 1] - edges[r]});
    copy_columns(stream, part, logits, edges[r]);
    cross_entropy_backward(stream, part, lse, labels, edges[r], scale);
    copy_columns(stream, part, logits, edges[r], true);
  }
}

/// The case's loss is kScale * sum over tokens: one output, its gradient 1 by construction.
OpCase cross_entropy_case(const Dims& d, DType dtype, double spread, const Edges& edges) {
  OpCase op;
  op.name = fmt::format("cross_entropy {} [{}, {}] * {}, cut at {}", dtype_name(dtype), d.tokens,
                        d.vocab, spread, fmt::join(edges, ", "));
  op.inputs = {{.name = "logits",
                .dtype = dtype,
                .dims = {d.tokens, d.vocab},
                .values = test::normal_values(d.tokens * d.vocab, 1, "logits", spread),
                .gradient_dtype = dtype},
               {.name = "labels",
                .dtype = DType::i32,
                .dims = {d.tokens},
                .values = test::integer_values(d.tokens, 2, "labels", 0, d.vocab),
                .differentiable = false}};
  if (d.tokens > 2) op.inputs[1].values[2] = kIgnoreLabel;
  op.outputs = {{.name = "loss", .dims = {d.tokens}},
                {.name = "lse", .dims = {d.tokens}, .differentiable = false}};
  op.reference = [d](const std::vector<Values>& in) { return reference(in, d); };
  op.forward = [edges](Stream& s, Arena& arena, auto in, auto out) {
    forward_in_parts(s, arena, out[0], out[1], in[0], in[1], edges);
  };
  op.backward = [edges](Stream& s, Arena& arena, auto in, auto out, auto dout, auto din) {
    // One token at a time, so that each has the scale of its loss's gradient.
    copy(s, din[0], in[0]);
    const HostView scales(s, dout[0], HostAccess::read);
    for (std::int64_t t = 0; t < in[0].rows(); ++t) {
      backward_in_parts(s, arena, din[0].slice(t, 1), out[1].slice(t, 1), in[1].slice(t, 1), edges,
                        scales.ptr<float>()[t]);
    }
  };
  return op;
}

struct Result {
  std::vector<double> loss, lse, gradient;
};

Result run(const std::vector<double>& logits, const std::vector<double>& labels,
           int num_threads = 1, Edges cuts = {}) {
  const auto tokens = static_cast<std::int64_t>(labels.size());
  const auto vocab = static_cast<std::int64_t>(logits.size()) / tokens;
  const GuardedTensor x(DType::f32, {tokens, vocab}, logits);
  const GuardedTensor y(DType::i32, {tokens}, labels);
  const GuardedTensor loss(DType::f32, {tokens}), lse(DType::f32, {tokens});
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(vocab);
  Stream stream = test::make_stream(num_threads);
  Arena arena(test::device());
  forward_in_parts(stream, arena, loss.tensor(), lse.tensor(), x.tensor(), y.tensor(), cuts);
  backward_in_parts(stream, arena, x.tensor(), lse.tensor(), y.tensor(), cuts, kScale);
  return {loss.values(), lse.values(), x.values()};
}

TEST(CrossEntropy, MatchesReferenceForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(cross_entropy_case({1, 1}, dtype, 1, {0, 1}));
    check_op(cross_entropy_case({5, 13}, dtype, 1, {0, 13}));
    check_op(cross_entropy_case({3, 32}, dtype, 5, {0, 32}));
  }
}

TEST(CrossEntropy, MatchesReferenceOverRanksThatShareTheVocabulary) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(cross_entropy_case({5, 13}, dtype, 1, {0, 6, 13}));
    check_op(cross_entropy_case({5, 13}, dtype, 5, {0, 0, 1, 9, 13, 13}));  // two without a column
    check_op(cross_entropy_case({3, 64}, dtype, 20, {0, 16, 32, 48, 64}));
  }
}

/// The bits of one rank, wherever the sums of exponentials happen to be exact.
TEST(CrossEntropy, ReadsTheLabelFromItsOwnerAlone) {
  const std::vector<double> logits = {1, 1, 1, 1};
  const Result whole = run(logits, {3});
  for (const Edges& cuts : {Edges{1}, {3}, {0}, {4}, {1, 2, 3}}) {
    const Result got = run(logits, {3}, 1, cuts);
    EXPECT_EQ(got.loss, whole.loss);
    EXPECT_EQ(got.lse, whole.lse);
    EXPECT_EQ(got.gradient, whole.gradient);
  }
}

TEST(CrossEntropy, RoundsTheLossOfOneRankOnce) {
  const GuardedTensor stats(DType::f32, {1, 2, 3}, {1e4, 1.25, 9999.5, 1e4, 1.25, 0});
  const GuardedTensor labels(DType::i32, {2}, {0, kIgnoreLabel});
  const GuardedTensor loss(DType::f32, {2}), lse(DType::f32, {2});
  Stream stream = test::make_stream(1);
  cross_entropy_combine(stream, loss.tensor(), lse.tensor(), stats.tensor(), labels.tensor());
  const float log_sum = std::log(1.25f);
  EXPECT_EQ(loss.values(), (std::vector<double>{0.5f + log_sum, 0}));
  EXPECT_EQ(lse.values(), std::vector<double>(2, 1e4f + log_sum));
}

TEST(CrossEntropy, MatchesReferenceBeyondOneChunkOfTheVocabulary) {
  const std::int64_t vocab = 5001;
  const Values labels = {4999, 17};
  std::vector<double> logits = test::normal_values(2 * vocab, 1, "logits", 3);
  logits[4000] = 60;  // the maximum of row 0 comes late: earlier sums are rescaled
  for (double& x : logits) x = static_cast<double>(static_cast<float>(x));
  const Result got = run(logits, {4999, 17}, 3);
  const auto want =
      reference({Values(logits.begin(), logits.end()), labels}, {.tokens = 2, .vocab = vocab});
  for (std::size_t t = 0; t < 2; ++t) {
    EXPECT_TRUE(std::abs(got.loss[t] - want[0][t].real()) <= 1e-5 * want[0][t].real());
    EXPECT_TRUE(std::abs(got.lse[t] - want[1][t].real()) <= 1e-5 * want[1][t].real());
  }
}

TEST(CrossEntropy, GradientsSumToZeroAndUseTheScale) {
  const Result got = run(test::normal_values(777, 1, "logits"), {5});
  double sum = 0;
  for (const double g : got.gradient) sum += g;
  EXPECT_TRUE(std::abs(sum) <= 1e-6);
  EXPECT_TRUE(std::abs(got.gradient[5] - kScale * std::expm1(-got.loss[0])) <= 1e-6);
}

TEST(CrossEntropy, IgnoresPositionsWithoutTarget) {
  const std::vector<double> logits = {1, 2, 3, 4, std::nan(""), 6};
  const Result got = run(logits, {2, kIgnoreLabel});
  EXPECT_EQ(got.loss[1], 0);
  EXPECT_EQ(std::vector<double>(got.gradient.begin() + 3, got.gradient.end()),
            std::vector<double>(3, 0.0));
  EXPECT_NE(got.loss[0], 0);
}

TEST(CrossEntropy, IsExactForLogitsOfTenThousand) {
  // log(1 + e^-0.5) survives next to 1e4, whose float32 neighbours are 1e-3 apart.
  const Result got = run({1e4, 1e4 - 0.5, -1e4}, {1});
  EXPECT_TRUE(std::abs(got.loss[0] - (0.5 + std::log1p(std::exp(-0.5)))) <= 1e-6);
  const Result negative = run({-1e4, -1e4 - 0.5, -2e4}, {1}, 1, {2, 2});
  EXPECT_TRUE(std::abs(negative.loss[0] - got.loss[0]) <= 1e-6);
  const Result far = run({1e4, -1e4}, {1});
  EXPECT_EQ(far.loss[0], 2e4);
  EXPECT_EQ(far.gradient, (std::vector<double>{kScale, -kScale}));
}

TEST(CrossEntropy, TakesMinusInfinityAsImpossible) {
  // The impossible logits fill the first chunk.
  std::vector<double> logits(3000, -INFINITY);
  logits[2000] = 1;
  logits[2999] = 1;
  const Result got = run(logits, {2000});
  EXPECT_TRUE(std::abs(got.loss[0] - std::log(2.0)) <= 1e-6);
  EXPECT_EQ(got.gradient[0], 0);
  EXPECT_TRUE(std::abs(got.gradient[2999] - kScale / 2) <= 1e-6);
}

TEST(CrossEntropy, NeverHidesANan) {
  for (const std::size_t place : {0, 7, 18}) {  // vector body and tail, first and last
    std::vector<double> logits = test::normal_values(19, 1, "logits");
    logits[place] = std::nan("");
    const Result got = run(logits, {3});
    EXPECT_TRUE(std::isnan(got.loss[0])) << place;
    EXPECT_TRUE(std::isnan(got.gradient[3])) << place;
    EXPECT_TRUE(std::isnan(run(logits, {3}, 1, {9, 18}).loss[0])) << place;
  }
  EXPECT_TRUE(std::isnan(run({1, INFINITY, 2}, {0}).loss[0]));
}

TEST(CrossEntropy, RejectsLabelsOutsideTheVocabulary) {
  for (const double label : {3.0, -1.0, -99.0, -101.0}) {
    if (!test::on_cuda()) {
      EXPECT_THROW(run({1, 2, 3}, {label}), LogicError) << label;
    } else {  // nobody reads it on the host: it is no rank's label, so nothing is taken off
      double sum = 0;
      for (const double g : run({1, 2, 3}, {label}).gradient) sum += g;
      EXPECT_TRUE(std::abs(sum - kScale) <= 1e-6) << label;
    }
  }
  const GuardedTensor logits(DType::f32, {1, 3}, {1, 2, 3}), lse(DType::f32, {1}, {0.0});
  const GuardedTensor stats(DType::f32, {1, 3}), two(DType::i32, {2}, {0.0, 0.0});
  const GuardedTensor label(DType::i32, {1}, {0.0});
  Stream stream = test::make_stream(1);
  const auto forward = [&](std::int64_t first_id, std::int64_t vocab_size) {
    cross_entropy_forward(stream, stats.tensor(), logits.tensor(), label.tensor(), first_id,
                          vocab_size);
  };
  EXPECT_NO_THROW(forward(2, 5));
  EXPECT_THROW(forward(3, 5), LogicError);
  EXPECT_THROW(forward(-1, 5), LogicError);
  EXPECT_THROW(cross_entropy_backward(stream, logits.tensor(), lse.tensor(), two.tensor(), 0, 1),
               LogicError);
}

}  // namespace
}  // namespace jamba
