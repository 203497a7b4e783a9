// cuDNN's attention beside our own kernels, on the same device. Emulated, a twin stands for cuDNN:
// what is tested then is how it is called.
#include "kernels/attention/fused_attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/attention/tiled_attention.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using Doubles = std::vector<double>;

/// Sizes, and where documents of each sequence begin among its keys; the first one at 0.
struct Case {
  AttentionShape shape;
  std::vector<std::vector<std::int64_t>> documents = {};
  DType dtype = DType::bf16;

  std::string name() const {
    return fmt::format("{} x {}/{} tokens, {}/{} heads of {}, {} documents of {} at most",
                       shape.batch, shape.seq, shape.seq_keys, shape.num_heads, shape.num_kv_heads,
                       shape.head_dim, documents.size(), shape.documents);
  }
  Doubles doc_start() const {
    Doubles out;
    for (const auto& starts : documents) {
      for (std::int64_t i = 0; i < shape.seq; ++i) {
        const std::int64_t place = shape.seq_keys - shape.seq + i;
        std::int64_t start = 0;
        for (const std::int64_t s : starts) start = s <= place ? s : start;
        out.push_back(static_cast<double>(start));
      }
    }
    return out;
  }
};

struct Outputs {
  GuardedTensor out, lse, dq, dk, dv;

  explicit Outputs(const Case& c)
      : out(c.dtype, {c.shape.batch * c.shape.seq, c.shape.num_heads * c.shape.head_dim}),
        lse(DType::f32, {c.shape.batch, c.shape.num_heads, c.shape.seq}),
        dq(c.dtype, {c.shape.batch * c.shape.seq, c.shape.num_heads * c.shape.head_dim}),
        dk(c.dtype, {c.shape.batch * c.shape.seq_keys, c.shape.num_kv_heads * c.shape.head_dim}),
        dv(c.dtype, {c.shape.batch * c.shape.seq_keys, c.shape.num_kv_heads * c.shape.head_dim}) {}
};

/// Both directions by cuDNN and by our own kernels.
struct Both {
  explicit Both(const Case& test) : c(test), fused(c), tiled(c) {
    const AttentionShape& s = c.shape;
    const auto values = [&](const GuardedTensor& like, const char* name) {
      const Tensor t = like.tensor();
      return GuardedTensor(c.dtype, {t.rows(), t.cols()}, test::normal_values(t.numel(), 7, name));
    };
    const GuardedTensor q = values(fused.dq, "q"), k = values(fused.dk, "k"),
                        v = values(fused.dv, "v"), dout = values(fused.out, "dout");
    const bool packed = !c.documents.empty();
    const GuardedTensor starts(
        DType::i32, {s.batch, s.seq},
        packed ? c.doc_start() : Doubles(static_cast<std::size_t>(s.batch * s.seq)));
    const Tensor doc_start = packed ? starts.tensor() : Tensor();
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    Stream stream = test::make_stream();
    Arena scratch(test::device());
    scratch.poison_on(stream);
    taken_forward =
        cuda::fused_attention_forward(stream, scratch, fused.out.tensor(), fused.lse.tensor(),
                                      q.tensor(), k.tensor(), v.tensor(), doc_start, s, scale);
    cuda::tiled_attention_forward(stream, tiled.out.tensor(), tiled.lse.tensor(), q.tensor(),
                                  k.tensor(), v.tensor(), doc_start, s, scale);
    const auto& from = taken_forward ? fused : tiled;
    taken_backward = cuda::fused_attention_backward(
        stream, scratch, fused.dq.tensor(), fused.dk.tensor(), fused.dv.tensor(), dout.tensor(),
        q.tensor(), k.tensor(), v.tensor(), from.out.tensor(), from.lse.tensor(), doc_start, s,
        scale);
    cuda::tiled_attention_backward(stream, scratch, tiled.dq.tensor(), tiled.dk.tensor(),
                                   tiled.dv.tensor(), dout.tensor(), q.tensor(), k.tensor(),
                                   v.tensor(), tiled.out.tensor(), tiled.lse.tensor(), doc_start, s,
                                   scale);
    stream.synchronize();
  }

  void expect_close() const {
    SCOPED_TRACE(c.name());
    EXPECT_TRUE(taken_forward);
    EXPECT_TRUE(taken_backward);
    const auto compare = [](const char* name, const GuardedTensor& got, const GuardedTensor& want) {
      EXPECT_LE(test::worst_error(got.values(), want.values()), 1.6e-2) << name;
      EXPECT_TRUE(got.guards_intact()) << name;
    };
    compare("out", fused.out, tiled.out);
    compare("lse", fused.lse, tiled.lse);
    compare("dq", fused.dq, tiled.dq);
    compare("dk", fused.dk, tiled.dk);
    compare("dv", fused.dv, tiled.dv);
  }

  const Case& c;
  Outputs fused, tiled;
  bool taken_forward = false, taken_backward = false;
};

AttentionShape shape_of(std::int64_t batch, std::int64_t seq, std::int64_t seq_keys,
                        std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                        std::int64_t documents = 0) {
  return {batch, seq, seq_keys, heads, kv_heads, head_dim, documents};
}

class FusedAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::on_cuda()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(FusedAttention, AgreesWithOurOwnOverWholeSequences) {
  Both({shape_of(2, 40, 40, 4, 2, 16)}).expect_close();
  Both({shape_of(1, 17, 17, 3, 3, 64)}).expect_close();
  Both({shape_of(1, 16, 33, 4, 1, 8)}).expect_close();  // the queries are the last of the keys
}

TEST_F(FusedAttention, AgreesWithOurOwnOverPackedDocuments) {
  Both({shape_of(2, 40, 40, 4, 2, 16, 5), {{0, 7, 30}, {0, 39}}}).expect_close();
  Both({shape_of(2, 40, 40, 2, 2, 8, 3), {{0}, {0, 20}}}).expect_close();
  // As context parallelism has them: the first document began before the first query, or long ago
  // ended.
  Both({shape_of(2, 18, 36, 2, 1, 8, 6), {{0, 10, 20}, {0, 5, 18, 25}}}).expect_close();
  // Promised many, has few: most slots are empty.
  Both({shape_of(1, 20, 20, 2, 1, 8, 100), {{0, 3}}}).expect_close();
}

TEST_F(FusedAttention, ManyShortDocumentsFillMoreThanOneRoundOfTheScan) {
  Case c{shape_of(1, 1100, 1100, 1, 1, 8, 550), {{}}};
  for (std::int64_t i = 0; i < 1100; i += 2) c.documents[0].push_back(i);
  Both(c).expect_close();
}

TEST_F(FusedAttention, DocumentsBeyondThePromiseAreLeftOut) {
  if (test::checks_accesses())
    GTEST_SKIP() << "what nobody writes, the others' statistics, is read";
  Case c{shape_of(1, 100, 100, 1, 1, 8, 1), {{}}};
  for (std::int64_t i = 0; i < 100; i += 2) c.documents[0].push_back(i);
  for (int run = 0; run < 10; ++run) {  // emulated, in as many orders
    const Both both(c);
    ASSERT_TRUE(both.taken_forward);
    const Doubles got = both.fused.out.values(), want = both.tiled.out.values();
    constexpr int kFirst = 2 * 8;  // elements of the first document
    EXPECT_LE(test::worst_error(Doubles(got.begin(), got.begin() + kFirst),
                                Doubles(want.begin(), want.begin() + kFirst)),
              1.6e-2);
    for (std::size_t i = kFirst; i < got.size(); ++i) ASSERT_TRUE(std::isnan(got[i])) << i;
  }
}

TEST_F(FusedAttention, LeavesTheRestToOurOwn) {
  const auto taken = [](const Case& c) {
    const Both both(c);
    return both.taken_forward || both.taken_backward;
  };
  EXPECT_TRUE(taken({shape_of(1, 16, 16, 1, 1, 8)}));
  EXPECT_FALSE(taken({shape_of(1, 16, 16, 1, 1, 8), {}, DType::f32}));
  EXPECT_FALSE(taken({shape_of(1, 16, 16, 1, 1, 12)}));
  EXPECT_FALSE(taken({shape_of(1, 15, 16, 1, 1, 8)}));
  EXPECT_FALSE(taken({shape_of(1, 16, 16, 1, 1, 8), {{0}}}));  // documents of unknown number
  const bool twin = cuda::attention_library_version() == "cuDNN 0.0.0";  // 128 is its limit
  EXPECT_TRUE(!twin || !taken({shape_of(1, 16, 16, 1, 1, 136)}));
}

TEST_F(FusedAttention, GivesTheSameBitsTwice) {
  const Case c{shape_of(2, 40, 40, 4, 2, 16, 5), {{0, 7, 30}, {0, 39}}};
  const Both a(c), b(c);
  EXPECT_TRUE(test::same_bits(a.fused.out.tensor(), b.fused.out.tensor()));
  EXPECT_TRUE(test::same_bits(a.fused.dq.tensor(), b.fused.dq.tensor()));
  EXPECT_TRUE(test::same_bits(a.fused.dk.tensor(), b.fused.dk.tensor()));
  EXPECT_TRUE(test::same_bits(a.fused.dv.tensor(), b.fused.dv.tensor()));
}

}  // namespace
}  // namespace jamba
