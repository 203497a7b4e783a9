#include "kernels/mamba/causal_conv1d.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/mamba/causal_conv1d_plan.h"
#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

struct Dims {
  std::int64_t batch, seq, inner, taps;
};

/// Which optional inputs a case has; an absent one is passed as an absent tensor.
struct Options {
  bool bias = true, history = true, documents = true;
};

/// x, w, bias, history, doc_start; absent ones are empty.
std::vector<Values> reference(const std::vector<Values>& in, const Dims& dims) {
  const auto [batch, seq, inner, taps] = dims;
  const Values &x = in[0], &w = in[1], &bias = in[2], &history = in[3], &starts = in[4];
  const auto input = [&](std::int64_t b, std::int64_t s, std::int64_t d) -> Scalar {
    if (s >= 0) return x[(b * seq + s) * inner + d];
    return history.empty() ? Scalar(0) : history[(b * (taps - 1) + taps - 1 + s) * inner + d];
  };
  Values y;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < seq; ++t) {
      const double first = starts.empty() ? -1e9 : starts[b * seq + t].real();
      for (std::int64_t d = 0; d < inner; ++d) {
        Scalar pre = bias.empty() ? Scalar(0) : bias[d];
        for (std::int64_t j = 0; j < taps; ++j) {
          const std::int64_t s = t - (taps - 1) + j;
          if (static_cast<double>(s) >= first) pre += w[d * taps + j] * input(b, s, d);
        }
        y.push_back(pre / (1.0 + std::exp(-pre)));
      }
    }
  }
  return {y};
}

/// Documents of 3, 1, 5, 3, 1, 5, ... tokens; the first began `before` tokens before step 0.
std::vector<double> document_starts(const Dims& dims, std::int64_t before) {
  std::vector<double> out;
  const std::int64_t lengths[] = {3, 1, 5};
  for (std::int64_t b = 0; b < dims.batch; ++b) {
    std::int64_t start = -before, next = 2 + b;
    for (std::int64_t t = 0, i = 0; t < dims.seq; ++t) {
      if (t == next) {
        start = t;
        next += lengths[i++ % 3];
      }
      out.push_back(static_cast<double>(start));
    }
  }
  return out;
}

OpCase conv_case(const Dims& dims, DType dtype, DType weight_dtype, const Options& options) {
  const auto [batch, seq, inner, taps] = dims;
  OpCase op;
  op.name =
      fmt::format("causal_conv1d {}/{} [{}, {}, {}] K {}{}{}{}", dtype_name(dtype),
                  dtype_name(weight_dtype), batch, seq, inner, taps, options.bias ? " bias" : "",
                  options.history ? " history" : "", options.documents ? " documents" : "");
  const std::int64_t before = options.history ? 1 : 0;
  op.inputs = {
      {.name = "x", .dtype = dtype, .dims = {batch, seq, inner}, .gradient_dtype = dtype},
      {.name = "w", .dtype = weight_dtype, .dims = {inner, taps}, .gradient_accumulates = true},
      {.name = "bias",
       .dtype = weight_dtype,
       .dims = {options.bias ? inner : 0},
       .gradient_accumulates = true},
      {.name = "history",
       .dtype = dtype,
       .dims = {batch, options.history ? taps - 1 : 0, inner},
       .gradient_dtype = dtype},
      {.name = "doc_start",
       .dtype = DType::i32,
       .dims = {options.documents ? batch : 0, seq},
       .values = options.documents ? document_starts(dims, before) : std::vector<double>{},
       .differentiable = false}};
  for (int i = 0; i < 4; ++i) {
    std::int64_t n = 1;
    for (const std::int64_t d : op.inputs[i].dims) n *= d;
    op.inputs[i].values = test::normal_values(n, 1, op.inputs[i].name);
  }
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {batch, seq, inner}}};
  op.reference = [dims](const std::vector<Values>& in) { return reference(in, dims); };
  const auto given = [](const Tensor& t) { return t.numel() == 0 ? Tensor{} : t; };
  op.forward = [given](Stream& s, Arena&, auto in, auto out) {
    causal_conv1d_forward(s, out[0], in[0], in[1], given(in[2]), given(in[4]), given(in[3]));
  };
  op.backward = [given](Stream& s, Arena& scratch, auto in, auto, auto dout, auto din) {
    causal_conv1d_backward(s, scratch, din[0], din[1], given(din[2]), given(din[3]), dout[0], in[0],
                           in[1], given(in[2]), given(in[4]), given(in[3]));
  };
  return op;
}

TEST(CausalConv1d, MatchesReferenceForEveryNumberOfTaps) {
  for (std::int64_t taps = 1; taps <= kMaxConvTaps; ++taps) {
    check_op(conv_case({2, 9, 5, taps}, DType::f32, DType::f32, {}));
  }
}

TEST(CausalConv1d, MatchesReferenceWithAndWithoutOptionalInputs) {
  for (const bool bias : {false, true}) {
    for (const bool history : {false, true}) {
      for (const bool documents : {false, true}) {
        check_op(conv_case({2, 7, 9, 4}, DType::f32, DType::f32, {bias, history, documents}));
      }
    }
  }
}

TEST(CausalConv1d, AcceptsFewerStepsThanTaps) {
  for (const std::int64_t seq : {1, 2, 3}) {
    check_op(conv_case({2, seq, 3, 4}, DType::f32, DType::f32, {}));
    check_op(conv_case({1, seq, 3, 8}, DType::f32, DType::f32, {true, true, false}));
  }
}

TEST(CausalConv1d, StoresBFloat16) {
  for (const DType weights : {DType::f32, DType::bf16}) {
    check_op(conv_case({1, 6, 17, 4}, DType::bf16, weights, {}));
  }
}

/// Steps and channels beyond one piece of work.
TEST(CausalConv1d, JoinsItsPieces) {
  check_op(conv_case({1, kConvSteps + 5, 2, 4}, DType::f32, DType::f32, {true, true, false}));
  check_op(conv_case({1, 3, kConvChannels + 3, 3}, DType::f32, DType::f32, {}));
}

/// Two runs over the halves of a sequence, the second with the first's last inputs as history.
TEST(CausalConv1d, AnyCutOfTheStepsGivesTheSameBits) {
  constexpr std::int64_t kSeq = 10, kInner = 19, kTaps = 4;
  const std::vector<double> values = test::normal_values(kSeq * kInner, 1, "x");
  const GuardedTensor w(DType::f32, {kInner, kTaps}, test::normal_values(kInner * kTaps, 1, "w"));
  const GuardedTensor whole_x(DType::f32, {1, kSeq, kInner}, values);
  const GuardedTensor whole_y(DType::f32, {1, kSeq, kInner});
  Stream stream = test::make_stream(1);
  causal_conv1d_forward(stream, whole_y.tensor(), whole_x.tensor(), w.tensor(), {}, {}, {});
  const auto rows = [&](const std::vector<double>& x, std::int64_t begin, std::int64_t end) {
    std::vector<double> out((end - begin) * kInner);
    for (std::int64_t i = 0; i < (end - begin) * kInner; ++i) {
      const std::int64_t from = begin * kInner + i;
      out[i] = from < 0 ? 0.0 : x[from];
    }
    return out;
  };
  for (std::int64_t cut = 0; cut <= kSeq; ++cut) {
    const GuardedTensor x(DType::f32, {1, kSeq - cut, kInner}, rows(values, cut, kSeq));
    const GuardedTensor history(DType::f32, {1, kTaps - 1, kInner},
                                rows(values, cut - (kTaps - 1), cut));
    const GuardedTensor y(DType::f32, {1, kSeq - cut, kInner});
    causal_conv1d_forward(stream, y.tensor(), x.tensor(), w.tensor(), {}, {}, history.tensor());
    EXPECT_EQ(y.values(), rows(whole_y.values(), cut, kSeq)) << "cut at " << cut;
  }
}

/// One sequence, and what each of its shards gives, joined again.
struct Shards {
  static constexpr std::int64_t kSeq = 23, kInner = 19, kTaps = 4;
  std::vector<double> x = test::normal_values(kSeq * kInner, 1, "x");
  std::vector<double> dy = test::normal_values(kSeq * kInner, 1, "dy");
  GuardedTensor w{DType::f32, {kInner, kTaps}, test::normal_values(kInner* kTaps, 1, "w")};
  std::vector<std::int64_t> starts = std::vector<std::int64_t>(kSeq, 0);

  struct Result {
    std::vector<double> y, dx = std::vector<double>(kSeq * kInner), dw;
  };

  /// A shard hands on its last inputs, and takes their gradient back.
  Result run(const std::vector<std::int64_t>& edges) const {
    Result r;
    const GuardedTensor dw(DType::f32, {kInner, kTaps}, std::vector<double>(kInner * kTaps));
    for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
      const std::int64_t begin = edges[i], seq = edges[i + 1] - begin, before = begin - (kTaps - 1);
      std::vector<double> doc_start, past;
      for (std::int64_t t = 0; t < seq; ++t) {
        doc_start.push_back(static_cast<double>(starts[begin + t] - begin));
      }
      for (std::int64_t at = before * kInner; at < begin * kInner; ++at) {
        past.push_back(at < 0 ? 0.0 : x[at]);
      }
      const auto rows = [&](const std::vector<double>& all) {
        return std::vector(all.begin() + begin * kInner, all.begin() + (begin + seq) * kInner);
      };
      const GuardedTensor input(DType::f32, {1, seq, kInner}, rows(x));
      const GuardedTensor gradient(DType::f32, {1, seq, kInner}, rows(dy));
      const GuardedTensor documents(DType::i32, {1, seq}, doc_start);
      const GuardedTensor history(DType::f32, {1, kTaps - 1, kInner}, past);
      const GuardedTensor y(DType::f32, {1, seq, kInner}), dx(DType::f32, {1, seq, kInner});
      const GuardedTensor dhistory(DType::f32, {1, kTaps - 1, kInner});
      Stream stream = test::make_stream(1);
      Arena scratch(test::device());
      causal_conv1d_forward(stream, y.tensor(), input.tensor(), w.tensor(), {}, documents.tensor(),
                            history.tensor());
      causal_conv1d_backward(stream, scratch, dx.tensor(), dw.tensor(), {}, dhistory.tensor(),
                             gradient.tensor(), input.tensor(), w.tensor(), {}, documents.tensor(),
                             history.tensor());
      const std::vector<double> part = y.values();
      r.y.insert(r.y.end(), part.begin(), part.end());
      const auto add = [&](const std::vector<double>& d, std::int64_t first) {
        for (std::size_t k = 0; k < d.size(); ++k) {
          const auto at = first * kInner + static_cast<std::int64_t>(k);
          if (at >= 0) r.dx[at] += d[k];
        }
      };
      add(dx.values(), begin);
      add(dhistory.values(), before);
    }
    r.dw = dw.values();
    return r;
  }
};

TEST(CausalConv1d, ShardsGiveTheWholeSequenceAndItsGradients) {
  Shards s;
  for (std::int64_t t = 5; t < Shards::kSeq; ++t) s.starts[t] = t < 17 ? 5 : 17;
  const Shards::Result whole = s.run({0, Shards::kSeq});
  // The document from 5 on spans shards; a shard begins one or two steps after a document does.
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{7}, {9, 15}, {6, 18}, {10, 11}, {5, 17}}) {
    std::vector<std::int64_t> edges = cuts;
    edges.insert(edges.begin(), 0);
    edges.push_back(Shards::kSeq);
    const Shards::Result got = s.run(edges);
    EXPECT_EQ(got.y, whole.y) << cuts[0];
    EXPECT_LE(test::worst_error(got.dx, whole.dx), 1e-6) << cuts[0];
    EXPECT_LE(test::worst_error(got.dw, whole.dw), 1e-5) << cuts[0];
  }
}

TEST(CausalConv1d, KeepsNonFiniteValuesInTheirDocument) {
  constexpr std::int64_t kSeq = 8, kInner = 3;
  std::vector<double> values = test::normal_values(kSeq * kInner, 1, "x");
  values[3 * kInner] = std::numeric_limits<double>::infinity();
  values[2 * kInner + 1] = std::numeric_limits<double>::quiet_NaN();
  const GuardedTensor x(DType::f32, {1, kSeq, kInner}, values);
  const GuardedTensor w(DType::f32, {kInner, 4}, test::normal_values(kInner * 4, 1, "w"));
  const GuardedTensor starts(DType::i32, {1, kSeq}, {0, 0, 0, 0, 4, 4, 4, 4});
  const GuardedTensor y(DType::f32, {1, kSeq, kInner});
  Stream stream = test::make_stream(1);
  causal_conv1d_forward(stream, y.tensor(), x.tensor(), w.tensor(), {}, starts.tensor(), {});
  const std::vector<double> got = y.values();
  EXPECT_TRUE(std::isnan(got[3 * kInner + 1]));
  for (std::int64_t i = 4 * kInner; i < kSeq * kInner; ++i) EXPECT_TRUE(std::isfinite(got[i]));
}

TEST(CausalConv1d, NoStepsGiveTheHistoryNoGradient) {
  const GuardedTensor empty(DType::f32, {2, 0, 3}), w(DType::f32, {3, 4}, std::vector(12, 1.0));
  const GuardedTensor history(DType::f32, {2, 3, 3}, std::vector(18, 1.0));
  const GuardedTensor dhistory(DType::f32, {2, 3, 3});
  const GuardedTensor dw(DType::f32, {3, 4}, std::vector(12, 7.0));
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  causal_conv1d_forward(stream, empty.tensor(), empty.tensor(), w.tensor(), {}, {},
                        history.tensor());
  causal_conv1d_backward(stream, scratch, empty.tensor(), dw.tensor(), {}, dhistory.tensor(),
                         empty.tensor(), empty.tensor(), w.tensor(), {}, {}, history.tensor());
  EXPECT_EQ(dhistory.values(), std::vector(18, 0.0));
  EXPECT_EQ(dw.values(), std::vector(12, 7.0));
}

TEST(CausalConv1d, RejectsWrongShapes) {
  const GuardedTensor x(DType::f32, {1, 4, 3}), y(DType::f32, {1, 4, 3}), w(DType::f32, {3, 4});
  const GuardedTensor wide(DType::f32, {3, 9}), narrow(DType::f32, {2, 4});
  const GuardedTensor short_history(DType::f32, {1, 2, 3});
  Stream stream = test::make_stream(1);
  const auto run = [&](const GuardedTensor& weights, Tensor history) {
    causal_conv1d_forward(stream, y.tensor(), x.tensor(), weights.tensor(), {}, {}, history);
  };
  EXPECT_THROW(run(wide, {}), LogicError);
  EXPECT_THROW(run(narrow, {}), LogicError);
  EXPECT_THROW(run(w, short_history.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba
