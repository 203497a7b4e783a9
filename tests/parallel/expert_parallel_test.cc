#include "parallel/expert_parallel.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>

#include "kernels/core/errors.h"
#include "kernels/moe/permute.h"
#include "parallel/comm/thread_group.h"
#include "tests/parallel/rank_tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using Doubles = std::vector<double>;

enum class Pattern { random, one_expert, starved_rank, no_rows };

struct Case {
  int ranks;
  std::int64_t local;  // experts of a rank
  std::int64_t k;
  std::int64_t model;
  DType dtype;
  Pattern pattern;

  std::int64_t experts() const { return ranks * local; }
  /// Different on every rank, none on rank 1 of three and more.
  std::int64_t tokens(int rank) const {
    if (pattern == Pattern::no_rows) return 0;
    return ranks > 2 && rank == 1 ? 0 : 6 + 3 * rank;
  }
};

/// Experts that a rank's tokens choose, [tokens, k]; each k different ones where there are as many.
std::vector<double> choices(const Case& c, int rank) {
  std::mt19937 rng(static_cast<unsigned>(rank));
  const std::int64_t usable =
      c.pattern == Pattern::starved_rank && c.ranks > 1 ? c.experts() - c.local : c.experts();
  std::vector<double> index;
  for (std::int64_t t = 0; t < c.tokens(rank); ++t) {
    const auto first = static_cast<std::int64_t>(rng() % static_cast<unsigned>(usable));
    for (std::int64_t slot = 0; slot < c.k; ++slot) {
      const bool one = c.pattern == Pattern::one_expert;
      index.push_back(static_cast<double>(one ? c.experts() - 1 : (first + slot) % usable));
    }
  }
  return index;
}

/// One rank's routing and what it sends.
struct Sender {
  std::int64_t tokens, copies;
  GuardedTensor x, weight, index, row_of_slot, slot_of_row;
  std::vector<std::int64_t> offsets;

  Sender(const Case& c, int rank, const std::string& name = "x")
      : tokens(c.tokens(rank)),
        copies(tokens * c.k),
        x(test::whole_numbers(c.dtype, {tokens, c.model}, name, rank)),
        weight(DType::f32, {copies}, test::normal_values(copies, 7, fmt::format("w{}", rank))),
        index(DType::i32, {tokens, c.k}, choices(c, rank)),
        row_of_slot(DType::i32, {copies}),
        slot_of_row(DType::i32, {copies}),
        offsets(static_cast<std::size_t>(c.experts() + 1)) {
    Stream stream = Stream::cpu(1);
    build_permutation(stream, row_of_slot.tensor(), slot_of_row.tensor(), offsets, index.tensor());
  }
  std::int64_t slot(std::int64_t row) const {
    return slot_of_row.tensor().ptr<std::int32_t>()[row];
  }
  std::int64_t rows_of(std::int64_t expert) const {
    const auto e = static_cast<std::size_t>(expert);
    return offsets[e + 1] - offsets[e];
  }
};

struct Rows {
  Doubles rows, weight;
};

/// Row `row` of what a rank sends, with `shift` added to each number.
void append(Rows& out, const Case& c, const Sender& s, std::int64_t row, double shift) {
  const std::int64_t slot = s.slot(row);
  for (const double v : test::to_doubles(s.x.tensor().slice(slot / c.k, 1))) {
    out.rows.push_back(v + shift);
  }
  out.weight.push_back(test::to_doubles(s.weight.tensor().slice(slot, 1))[0]);
}

/// In held order: by expert of this rank, for each by sender.
Rows held_rows(const Case& c, int rank, const std::string& name) {
  std::vector<Sender> senders;
  for (int r = 0; r < c.ranks; ++r) senders.emplace_back(c, r, name);
  Rows out;
  for (std::int64_t e = rank * c.local; e < (rank + 1) * c.local; ++e) {
    for (const Sender& s : senders) {
      const std::int64_t begin = s.offsets[static_cast<std::size_t>(e)];
      for (std::int64_t i = 0; i < s.rows_of(e); ++i) append(out, c, s, begin + i, 0);
    }
  }
  return out;
}

/// In sent order, each row with the mark of the expert that it visited.
Rows visited_rows(const Case& c, const Sender& s) {
  Rows out;
  for (std::int64_t e = 0; e < c.experts(); ++e) {
    const std::int64_t begin = s.offsets[static_cast<std::size_t>(e)];
    for (std::int64_t i = 0; i < s.rows_of(e); ++i) {
      append(out, c, s, begin + i, static_cast<double>(16 * e));
    }
  }
  return out;
}

/// What a rank holds, marked by expert: bfloat16 has room for the numbers.
void mark(const Case& c, int rank, const ExpertExchange& exchange, const Tensor& rows) {
  Doubles values = test::to_doubles(rows);
  const auto offsets = exchange.held_offsets();
  for (std::int64_t e = 0; e < c.local; ++e) {
    const auto at = static_cast<std::size_t>(e);
    for (std::int64_t i = offsets[at] * c.model; i < offsets[at + 1] * c.model; ++i) {
      values[static_cast<std::size_t>(i)] += static_cast<double>(16 * (rank * c.local + e));
    }
  }
  test::from_doubles(rows, values);
}

template <class Body>
void for_each_case(const Body& body) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::int64_t local : {1, 3}) {
      for (const std::int64_t k : {1, 2, 3}) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          for (const Pattern pattern :
               {Pattern::random, Pattern::one_expert, Pattern::starved_rank, Pattern::no_rows}) {
            const Case c{ranks, local, k, 5, dtype, pattern};
            SCOPED_TRACE(fmt::format("{} ranks, {} experts each, k {}, {}, pattern {}", ranks,
                                     local, k, dtype_name(dtype), static_cast<int>(pattern)));
            run_ranks(ranks, [&](Communicator& ep) { body(ep, c); });
          }
        }
      }
    }
  }
}

/// An exchange with poisoned memory, of this rank's rows.
struct Fixture {
  Stream stream = Stream::cpu(1);
  Arena memory, scratch;
  Sender sender;
  ExpertExchange exchange;

  Fixture(Communicator& ep, const Case& c)
      : sender(c, ep.rank()),
        exchange(ep, stream, (memory.poison_on(stream), memory), sender.offsets) {
    scratch.poison_on(stream);
  }
};

TEST(ExpertExchange, ForwardBringsRowsThereAndBack) {
  for_each_case([](Communicator& ep, const Case& c) {
    Fixture f(ep, c);
    const Rows want = held_rows(c, ep.rank(), "x");
    ASSERT_EQ(f.exchange.num_sent(), f.sender.copies);
    ASSERT_EQ(f.exchange.num_held(), std::ssize(want.weight));
    ASSERT_EQ(f.exchange.held_offsets().back(), f.exchange.num_held());
    const GuardedTensor rows(c.dtype, {f.exchange.num_held(), c.model});
    const GuardedTensor weight(DType::f32, {f.exchange.num_held()});
    f.exchange.dispatch(f.stream, f.scratch, rows.tensor(), weight.tensor(), f.sender.x.tensor(),
                        f.sender.weight.tensor(), f.sender.slot_of_row.tensor(), c.k);
    EXPECT_EQ(rows.values(), want.rows);
    EXPECT_EQ(weight.values(), want.weight);

    mark(c, ep.rank(), f.exchange, rows.tensor());
    const GuardedTensor back(c.dtype, {f.exchange.num_sent(), c.model});
    f.exchange.combine(f.stream, f.scratch, back.tensor(), rows.tensor());
    EXPECT_EQ(back.values(), visited_rows(c, f.sender).rows);
    EXPECT_TRUE(rows.guards_intact() && weight.guards_intact() && back.guards_intact());
  });
}

TEST(ExpertExchange, BackwardBringsGradientsThereAndBack) {
  for_each_case([](Communicator& ep, const Case& c) {
    Fixture f(ep, c);
    const Rows want = held_rows(c, ep.rank(), "x");
    const GuardedTensor rows(c.dtype, {f.exchange.num_held(), c.model});
    f.exchange.dispatch_gradient(f.stream, f.scratch, rows.tensor(), f.sender.x.tensor(),
                                 f.sender.slot_of_row.tensor(), c.k);
    EXPECT_EQ(rows.values(), want.rows);

    mark(c, ep.rank(), f.exchange, rows.tensor());
    const GuardedTensor held_weight(DType::f32, {f.exchange.num_held()}, want.weight);
    const GuardedTensor back(c.dtype, {f.exchange.num_sent(), c.model});
    const GuardedTensor weight(DType::f32, {f.exchange.num_sent()});
    f.exchange.combine_gradient(f.stream, f.scratch, back.tensor(), weight.tensor(), rows.tensor(),
                                held_weight.tensor());
    const Rows visited = visited_rows(c, f.sender);
    EXPECT_EQ(back.values(), visited.rows);
    EXPECT_EQ(weight.values(), visited.weight);
    EXPECT_TRUE(rows.guards_intact() && weight.guards_intact() && back.guards_intact());
  });
}

/// <dispatch x, h> = <rows of x, combine_gradient h>, and <combine h, rows of dy> =
/// <h, dispatch_gradient dy>.
TEST(ExpertExchange, BackwardIsTheAdjointOfForward) {
  for_each_case([](Communicator& ep, const Case& c) {
    Fixture f(ep, c);
    const std::int64_t held = f.exchange.num_held(), sent = f.exchange.num_sent();
    const Tensor map = f.sender.slot_of_row.tensor(), x = f.sender.x.tensor();
    const GuardedTensor own(c.dtype, {sent, c.model}), back(c.dtype, {sent, c.model});
    const GuardedTensor there(c.dtype, {held, c.model}), weight(DType::f32, {held});
    const GuardedTensor back_weight(DType::f32, {sent});
    const GuardedTensor h = test::whole_numbers(c.dtype, {held, c.model}, "h", ep.rank());
    const GuardedTensor h_weight = test::whole_numbers(DType::f32, {held}, "hw", ep.rank());
    permute_forward(f.stream, own.tensor(), x, map, c.k);

    f.exchange.dispatch(f.stream, f.scratch, there.tensor(), weight.tensor(), x,
                        f.sender.weight.tensor(), map, c.k);
    f.exchange.combine_gradient(f.stream, f.scratch, back.tensor(), back_weight.tensor(),
                                h.tensor(), h_weight.tensor());
    EXPECT_EQ(test::dot_over_ranks(ep, there.tensor(), h.tensor()),
              test::dot_over_ranks(ep, own.tensor(), back.tensor()));

    f.exchange.combine(f.stream, f.scratch, back.tensor(), h.tensor());
    f.exchange.dispatch_gradient(f.stream, f.scratch, there.tensor(), x, map, c.k);
    EXPECT_EQ(test::dot_over_ranks(ep, back.tensor(), own.tensor()),
              test::dot_over_ranks(ep, h.tensor(), there.tensor()));
  });
}

TEST(ExpertExchange, SendsWhatDoesNotStay) {
  for_each_case([](Communicator& ep, const Case& c) {
    std::int64_t before = ep.bytes_sent();
    const auto sent = [&] { return ep.bytes_sent() - std::exchange(before, ep.bytes_sent()); };
    Fixture f(ep, c);
    EXPECT_EQ(sent(), (c.ranks - 1) * c.local * 8);
    std::int64_t stay = 0;
    for (std::int64_t e = 0; e < c.local; ++e) stay += f.sender.rows_of(ep.rank() * c.local + e);
    const std::int64_t there = f.exchange.num_sent() - stay, back = f.exchange.num_held() - stay;
    const std::int64_t row = c.model * dtype_bytes(c.dtype), with_weight = row + 4;
    const GuardedTensor held(c.dtype, {f.exchange.num_held(), c.model});
    const GuardedTensor held_weight(DType::f32, {f.exchange.num_held()});
    const GuardedTensor rows(c.dtype, {f.exchange.num_sent(), c.model});
    const GuardedTensor weight(DType::f32, {f.exchange.num_sent()});
    const Tensor x = f.sender.x.tensor(), map = f.sender.slot_of_row.tensor();
    f.exchange.dispatch(f.stream, f.scratch, held.tensor(), held_weight.tensor(), x,
                        f.sender.weight.tensor(), map, c.k);
    EXPECT_EQ(sent(), there * with_weight);
    f.exchange.combine(f.stream, f.scratch, rows.tensor(), held.tensor());
    EXPECT_EQ(sent(), back * row);
    f.exchange.dispatch_gradient(f.stream, f.scratch, held.tensor(), x, map, c.k);
    EXPECT_EQ(sent(), there * row);
    f.exchange.combine_gradient(f.stream, f.scratch, rows.tensor(), weight.tensor(), held.tensor(),
                                held_weight.tensor());
    EXPECT_EQ(sent(), back * with_weight);
  });
}

TEST(ExpertExchange, RefusesExpertsThatRanksDoNotDivide) {
  run_ranks(2, [](Communicator& ep) {
    Stream stream = Stream::cpu(1);
    Arena memory;
    const std::vector<std::int64_t> offsets{0, 0, 0, 0};
    EXPECT_THROW(ExpertExchange(ep, stream, memory, offsets), LogicError);
  });
}

}  // namespace
}  // namespace jamba
