#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;
using Doubles = std::vector<double>;

float scale_of(const AttentionShape& s) { return 1.0f / std::sqrt(static_cast<float>(s.head_dim)); }

std::vector<std::int64_t> query_dims(const AttentionShape& s) {
  return {s.batch * s.seq, s.num_heads * s.head_dim};
}
std::vector<std::int64_t> key_dims(const AttentionShape& s) {
  return {s.batch * s.seq_keys, s.num_kv_heads * s.head_dim};
}

/// Starts of documents of `length` tokens in every sequence.
Doubles document_starts(const AttentionShape& s, std::int64_t length) {
  Doubles starts;
  for (std::int64_t i = 0; i < s.batch * s.seq; ++i) {
    const std::int64_t place = i % s.seq + s.seq_keys - s.seq;
    starts.push_back(static_cast<double>(place - place % length));
  }
  return starts;
}

/// Calls visit(query row, key row) with the offsets of the first elements, for every visible pair
/// of query `i` (token) under head h.
template <class N, class Visit>
void for_visible(const AttentionShape& s, const std::vector<N>& doc_start, std::int64_t token,
                 std::int64_t h, Visit&& visit) {
  const std::int64_t b = token / s.seq, place = token % s.seq + s.seq_keys - s.seq;
  const std::int64_t kv = h / (s.num_heads / s.num_kv_heads);
  const auto first = static_cast<std::int64_t>(std::real(doc_start[token]));
  for (std::int64_t j = first; j <= place; ++j) {
    visit((token * s.num_heads + h) * s.head_dim,
          ((b * s.seq_keys + j) * s.num_kv_heads + kv) * s.head_dim);
  }
}

/// out and lse, in the number type N.
template <class N>
std::vector<std::vector<N>> reference(const std::vector<std::vector<N>>& in,
                                      const AttentionShape& s) {
  const std::vector<N>&q = in[0], &k = in[1], &v = in[2];
  std::vector<N> out(q.size()), lse(static_cast<std::size_t>(s.batch * s.num_heads * s.seq));
  for (std::int64_t t = 0; t < s.batch * s.seq; ++t) {
    for (std::int64_t h = 0; h < s.num_heads; ++h) {
      std::vector<N> scores;
      double max = -1e300;
      for_visible(s, in[3], t, h, [&](std::int64_t at, std::int64_t key) {
        N score = 0;
        for (std::int64_t i = 0; i < s.head_dim; ++i) score += q[at + i] * k[key + i];
        scores.push_back(score * static_cast<double>(scale_of(s)));
        max = std::max(max, std::real(scores.back()));
      });
      N sum = 0;
      for (const N& score : scores) sum += std::exp(score - max);
      lse[(t / s.seq * s.num_heads + h) * s.seq + t % s.seq] = max + std::log(sum);
      std::size_t j = 0;
      for_visible(s, in[3], t, h, [&](std::int64_t at, std::int64_t key) {
        const N weight = std::exp(scores[j++] - max) / sum;
        for (std::int64_t i = 0; i < s.head_dim; ++i) out[at + i] += weight * v[key + i];
      });
    }
  }
  return {out, lse};
}

/// dq, dk, dv in double, by the textbook formula.
std::vector<Doubles> reference_gradients(const std::vector<Doubles>& in,
                                         const std::vector<Doubles>& out, const Doubles& dout,
                                         const AttentionShape& s) {
  const Doubles &q = in[0], &k = in[1], &v = in[2];
  const double scale = static_cast<double>(scale_of(s));
  Doubles dq(q.size()), dk(k.size()), dv(v.size());
  for (std::int64_t t = 0; t < s.batch * s.seq; ++t) {
    for (std::int64_t h = 0; h < s.num_heads; ++h) {
      const double lse = out[1][(t / s.seq * s.num_heads + h) * s.seq + t % s.seq];
      for_visible(s, in[3], t, h, [&](std::int64_t at, std::int64_t key) {
        double score = 0, dweight = 0;
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          score += q[at + i] * k[key + i];
          dweight += dout[at + i] * (v[key + i] - out[0][at + i]);
        }
        const double weight = std::exp(scale * score - lse);
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          dv[key + i] += weight * dout[at + i];
          dk[key + i] += weight * dweight * scale * q[at + i];
          dq[at + i] += weight * dweight * scale * k[key + i];
        }
      });
    }
  }
  return {dq, dk, dv};
}

OpCase attention_case(const AttentionShape& s, DType dtype, std::int64_t document) {
  OpCase op;
  op.name =
      fmt::format("attention {} [{}, {}/{}, {}/{} heads of {}], documents of {}", dtype_name(dtype),
                  s.batch, s.seq, s.seq_keys, s.num_heads, s.num_kv_heads, s.head_dim, document);
  op.inputs = {{.name = "q", .dtype = dtype, .dims = query_dims(s)},
               {.name = "k", .dtype = dtype, .dims = key_dims(s)},
               {.name = "v", .dtype = dtype, .dims = key_dims(s)},
               {.name = "doc_start",
                .dtype = DType::i32,
                .dims = {s.batch, s.seq},
                .values = document_starts(s, document),
                .differentiable = false}};
  for (auto* input = op.inputs.data(); input != op.inputs.data() + 3; ++input) {
    input->values = test::normal_values(input->dims[0] * input->dims[1], 3, input->name);
    input->gradient_dtype = dtype;
  }
  op.outputs = {{.name = "out", .dtype = dtype, .dims = query_dims(s)},
                {.name = "lse", .dims = {s.batch, s.num_heads, s.seq}, .differentiable = false}};
  op.reference = [s](const std::vector<Values>& in) { return reference(in, s); };
  op.forward = [s](Stream& stream, Arena& arena, auto in, auto out) {
    attention_forward(stream, arena, out[0], out[1], in[0], in[1], in[2], in[3], s, scale_of(s));
  };
  op.backward = [s](Stream& stream, Arena& arena, auto in, auto out, auto dout, auto din) {
    attention_backward(stream, arena, din[0], din[1], din[2], dout[0], in[0], in[1], in[2], out[0],
                       out[1], in[3], s, scale_of(s));
  };
  return op;
}

AttentionShape shape_of(std::int64_t batch, std::int64_t seq, std::int64_t seq_keys,
                        std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  return {.batch = batch,
          .seq = seq,
          .seq_keys = seq_keys,
          .num_heads = heads,
          .num_kv_heads = kv_heads,
          .head_dim = head_dim};
}

constexpr std::int64_t kOneDocument = 1 << 20;

/// One problem with its tensors, for what check_op does not cover.
struct Problem {
  AttentionShape shape;
  Doubles q, k, v, dout, doc_start;
  DType dtype = DType::f32;

  explicit Problem(const AttentionShape& s, std::int64_t document = kOneDocument)
      : shape(s), doc_start(document_starts(s, document)) {
    const std::int64_t nq = s.batch * s.seq * s.num_heads * s.head_dim;
    const std::int64_t nk = s.batch * s.seq_keys * s.num_kv_heads * s.head_dim;
    q = test::normal_values(nq, 5, "q");
    k = test::normal_values(nk, 5, "k");
    v = test::normal_values(nk, 5, "v");
    dout = test::normal_values(nq, 5, "dout");
  }

  Doubles rounded(const Doubles& x, const std::vector<std::int64_t>& dims) const {
    return GuardedTensor(dtype, dims, x).values();
  }

  struct Result {
    GuardedTensor out, lse, dq, dk, dv;
    std::int64_t forward_bytes = 0, backward_bytes = 0;
  };
  Result run(bool backward = true, bool with_documents = true) const {
    const AttentionShape& s = shape;
    const GuardedTensor tq(dtype, query_dims(s), q), tk(dtype, key_dims(s), k);
    const GuardedTensor tv(dtype, key_dims(s), v), td(dtype, query_dims(s), dout);
    const GuardedTensor starts(DType::i32, {s.batch, s.seq}, doc_start);
    const Tensor documents = with_documents ? starts.tensor() : Tensor();
    Result r{.out = GuardedTensor(dtype, query_dims(s)),
             .lse = GuardedTensor(DType::f32, {s.batch, s.num_heads, s.seq}),
             .dq = GuardedTensor(dtype, query_dims(s)),
             .dk = GuardedTensor(dtype, key_dims(s)),
             .dv = GuardedTensor(dtype, key_dims(s))};
    Stream stream = test::make_stream(2);
    Arena scratch(test::device()), scratch_backward(test::device());
    attention_forward(stream, scratch, r.out.tensor(), r.lse.tensor(), tq.tensor(), tk.tensor(),
                      tv.tensor(), documents, s, scale_of(s));
    r.forward_bytes = scratch.high_water_bytes();
    if (!backward) return r;
    attention_backward(stream, scratch_backward, r.dq.tensor(), r.dk.tensor(), r.dv.tensor(),
                       td.tensor(), tq.tensor(), tk.tensor(), tv.tensor(), r.out.tensor(),
                       r.lse.tensor(), documents, s, scale_of(s));
    r.backward_bytes = scratch_backward.high_water_bytes();
    return r;
  }
};

TEST(Attention, MatchesReferenceForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(attention_case(shape_of(1, 1, 1, 1, 1, 1), dtype, kOneDocument));
    check_op(attention_case(shape_of(2, 7, 7, 2, 1, 12), dtype, kOneDocument));
    check_op(attention_case(shape_of(1, 9, 9, 3, 3, 5), dtype, 4));
    check_op(attention_case(shape_of(1, 21, 21, 6, 2, 4), dtype, 8));
  }
}

TEST(Attention, MatchesReferenceOverSeveralBlocksOfQueriesAndKeys) {
  check_op(attention_case(shape_of(1, 131, 131, 1, 1, 3), DType::f32, kOneDocument));
  check_op(attention_case(shape_of(1, 131, 131, 1, 1, 3), DType::f32, 50));
  check_op(attention_case(shape_of(1, 40, 40, 4, 1, 2), DType::f32, 23));
}

TEST(Attention, SharesBlocksBetweenAnyNumberOfHeads) {
  check_op(attention_case(shape_of(1, 9, 9, 11, 1, 2), DType::f32, kOneDocument));  // 11 = 1 * 11
  check_op(attention_case(shape_of(1, 10, 10, 18, 1, 2), DType::f32, 6));           // 18 = 6 * 3
  check_op(attention_case(shape_of(2, 5, 5, 16, 8, 2), DType::f32, kOneDocument));  // one segment
}

TEST(Attention, AnswersQueriesBehindCachedKeys) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(attention_case(shape_of(2, 1, 110, 4, 2, 3), dtype, kOneDocument));
    check_op(attention_case(shape_of(1, 5, 40, 3, 1, 5), dtype, 17));
    check_op(attention_case(shape_of(2, 11, 23, 4, 2, 3), dtype, kOneDocument));
  }
  check_op(attention_case(shape_of(1, 40, 105, 4, 1, 1), DType::f32, 50));  // three segments
}

TEST(Attention, StaysWithin1e5OfDoubleOverLongSequences) {
  if (test::checks_accesses()) GTEST_SKIP() << "minutes; others have shorter sequences";
  for (const auto& [seq, head_dim] : {std::pair{1000, 64}, {777, 128}, {2048, 12}}) {
    const Problem p(shape_of(1, seq, seq, 2, 1, head_dim), 700);
    const Problem::Result got = p.run();
    const std::vector<Doubles> in = {p.rounded(p.q, query_dims(p.shape)),
                                     p.rounded(p.k, key_dims(p.shape)),
                                     p.rounded(p.v, key_dims(p.shape)), p.doc_start};
    const std::vector<Doubles> want = reference(in, p.shape);
    const std::vector<Doubles> gradients =
        reference_gradients(in, want, p.rounded(p.dout, query_dims(p.shape)), p.shape);
    const auto expect_close = [&](const char* name, const GuardedTensor& x, const Doubles& y) {
      const double error = test::worst_error(x.values(), y);
      EXPECT_TRUE(error <= 1e-5) << name << " of " << seq << " tokens off by " << error;
    };
    expect_close("out", got.out, want[0]);
    expect_close("lse", got.lse, want[1]);
    expect_close("dq", got.dq, gradients[0]);
    expect_close("dk", got.dk, gradients[1]);
    expect_close("dv", got.dv, gradients[2]);
  }
}

TEST(Attention, WithoutDocumentsIsOneDocument) {
  const Problem p(shape_of(2, 120, 120, 2, 2, 8));
  const Problem::Result a = p.run(true, true), b = p.run(true, false);
  EXPECT_EQ(a.out.values(), b.out.values());
  EXPECT_EQ(a.dq.values(), b.dq.values());
  EXPECT_EQ(a.dk.values(), b.dk.values());
  EXPECT_EQ(a.dv.values(), b.dv.values());
}

TEST(Attention, KeepsDocumentsApartBitForBit) {
  constexpr std::int64_t kFirst = 70, kSeq = 163;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Problem p(shape_of(1, kSeq, kSeq, 4, 2, 16));
    p.dtype = dtype;
    for (std::int64_t i = kFirst; i < kSeq; ++i) p.doc_start[i] = kFirst;
    const Problem::Result before = p.run();
    const auto change = [](Doubles& x) {
      const auto end = x.size() * kFirst / kSeq;
      for (std::size_t i = 0; i < end; ++i) x[i] = 30 * x[i] + 1;
    };
    for (Doubles* x : {&p.q, &p.k, &p.v, &p.dout}) change(*x);
    const Problem::Result after = p.run();
    const auto expect_second_equal = [&](const GuardedTensor& x, const GuardedTensor& y) {
      const Doubles a = x.values(), b = y.values();
      const auto begin = static_cast<std::ptrdiff_t>(a.size() * kFirst / kSeq);
      EXPECT_TRUE(std::equal(a.begin() + begin, a.end(), b.begin() + begin));
      EXPECT_FALSE(std::equal(a.begin(), a.begin() + begin, b.begin()));
    };
    expect_second_equal(before.out, after.out);
    expect_second_equal(before.dq, after.dq);
    expect_second_equal(before.dk, after.dk);
    expect_second_equal(before.dv, after.dv);
  }
}

TEST(Attention, DecodesTheLastRowsOfTheFullForward) {
  constexpr std::int64_t kSeq = 230;
  const Problem full(shape_of(1, kSeq, kSeq, 4, 2, 20));
  const Doubles want = full.run(false).out.values();
  for (const std::int64_t queries : {1, 3, 70}) {
    Problem tail(shape_of(1, queries, kSeq, 4, 2, 20));
    tail.k = full.k;
    tail.v = full.v;
    const std::ptrdiff_t values = queries * 4 * 20;
    tail.q.assign(full.q.end() - values, full.q.end());
    EXPECT_EQ(tail.run(false).out.values(), Doubles(want.end() - values, want.end())) << queries;
  }
}

/// Rows [begin, begin + count) of each sequence's `seq`.
Doubles rows(const Doubles& x, std::int64_t batch, std::int64_t seq, std::int64_t begin,
             std::int64_t count) {
  const auto width = static_cast<std::int64_t>(x.size()) / (batch * seq);
  Doubles out;
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto first = x.begin() + (b * seq + begin) * width;
    out.insert(out.end(), first, first + count * width);
  }
  return out;
}

/// Queries cut over two ranks, each with the keys up to its end.
TEST(Attention, PartsOfTheQueriesAddUpToTheWholeGradient) {
  constexpr std::int64_t kBatch = 2, kSeq = 230;
  for (const std::int64_t cut : {1, 115, 200}) {
    const Problem full(shape_of(kBatch, kSeq, kSeq, 4, 2, 20), 90);
    const Problem::Result whole = full.run();
    Doubles dk(full.k.size()), dv(full.v.size());
    for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, cut}, {cut, kSeq}}) {
      const auto part_of = [&, begin = begin, end = end](const Doubles& x) {
        return rows(x, kBatch, kSeq, begin, end - begin);
      };
      Problem part(shape_of(kBatch, end - begin, end, 4, 2, 20));
      part.q = part_of(full.q);
      part.dout = part_of(full.dout);
      part.doc_start = part_of(full.doc_start);
      part.k = rows(full.k, kBatch, kSeq, 0, end);
      part.v = rows(full.v, kBatch, kSeq, 0, end);
      const Problem::Result got = part.run();
      EXPECT_LE(test::worst_error(got.out.values(), part_of(whole.out.values())), 1e-6);
      EXPECT_LE(test::worst_error(got.dq.values(), part_of(whole.dq.values())), 1e-5);
      const auto add = [&, end = end](Doubles& sum, const Doubles& x) {
        const std::size_t width = sum.size() / (kBatch * kSeq);
        for (std::size_t i = 0; i < x.size(); ++i) {
          const std::size_t row = i / width;
          sum[(row / end * kSeq + row % end) * width + i % width] += x[i];
        }
      };
      add(dk, got.dk.values());
      add(dv, got.dv.values());
    }
    EXPECT_LE(test::worst_error(dk, whole.dk.values()), 1e-5) << cut;
    EXPECT_LE(test::worst_error(dv, whole.dv.values()), 1e-5) << cut;
  }
}

TEST(Attention, GivesKeysThatNoQuerySeesNoGradient) {
  constexpr std::int64_t kUnseen = 50, kKeys = 150;
  Problem p(shape_of(1, 20, kKeys, 2, 1, 4));
  p.doc_start.assign(p.doc_start.size(), kUnseen);
  for (Doubles* x : {&p.k, &p.v}) std::fill_n(x->begin(), kUnseen * 4, std::nan(""));
  const Problem none(shape_of(1, 0, kKeys, 2, 1, 4));
  for (const auto& [problem, unseen] :
       {std::pair<const Problem*, std::int64_t>{&p, kUnseen}, {&none, kKeys}}) {
    const Problem::Result got = problem->run();
    for (const GuardedTensor* t : {&got.dk, &got.dv}) {
      const Doubles x = t->values();
      for (std::int64_t j = 0; j < kKeys; ++j) EXPECT_EQ(x[j * 4] == 0, j < unseen) << j;
    }
  }
}

TEST(Attention, SurvivesScoresOfTenThousand) {
  Problem p(shape_of(1, 130, 130, 2, 1, 4));
  for (double& x : p.q) x *= 100;
  for (double& x : p.k) x *= 100;
  const Problem::Result got = p.run();
  for (const GuardedTensor* t : {&got.out, &got.lse, &got.dq, &got.dk, &got.dv}) {
    for (const double x : t->values()) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(Attention, ShowsANanToEveryQueryThatSeesIt) {
  Problem p(shape_of(1, 130, 130, 1, 1, 4));
  p.k[100 * 4 + 1] = std::nan("");
  const Doubles out = p.run(false).out.values();
  for (std::int64_t t = 0; t < 130; ++t) EXPECT_EQ(std::isnan(out[t * 4]), t >= 100) << t;
}

TEST(Attention, TakesScratchLinearInLength) {
  if (test::checks_accesses()) GTEST_SKIP() << "minutes";
  const auto bytes = [](std::int64_t seq) {
    const Problem::Result r = Problem(shape_of(1, seq, seq, 2, 1, 8)).run();
    return std::pair{r.forward_bytes, r.backward_bytes};
  };
  const std::int64_t long_seq = test::on_cuda() ? 2048 : 4096;  // emulated, each step counts
  const auto [forward, backward] = bytes(1024);
  const auto [forward_long, backward_long] = bytes(long_seq);
  EXPECT_EQ(forward_long, forward);
  EXPECT_LE(backward_long, long_seq / 1024 * backward + long_seq);
}

TEST(Attention, RejectsWhatItCannotCompute) {
  EXPECT_THROW(Problem(shape_of(1, 4, 4, 3, 2, 4)).run(), LogicError);  // 3 heads over 2
  EXPECT_THROW(Problem(shape_of(1, 4, 3, 2, 2, 4)).run(), LogicError);  // fewer keys
  Problem blind(shape_of(1, 4, 4, 2, 2, 4));
  blind.doc_start[2] = 3;  // would see no key
  Problem more(shape_of(1, 4, 4, 2, 2, 4), 2);
  more.shape.documents = 1;  // but has two
  // On a device nobody reads document starts on the host.
  if (!test::on_cuda()) {
    EXPECT_THROW(blind.run(), LogicError);
    EXPECT_THROW(more.run(), LogicError);
  }
}

}  // namespace
}  // namespace jamba
