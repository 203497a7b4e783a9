#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/core/memory.h"
#include "tests/parallel/collective_cases.h"

namespace jamba::test {

namespace {

template <class T>
Tensor view(std::vector<T>& values) {
  return Tensor(values.data(), kDTypeOf<T>, {static_cast<std::int64_t>(values.size())});
}

template <class T>
std::vector<T> values_of(int rank, std::int64_t n) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<T>(rank_value(rank, i) * 100));
  return values;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// The sums that Communicator promises, of values_of<T>: in float32, in tree order, rounded once.
template <class T>
std::vector<T> promised_sums(int size, std::int64_t begin, std::int64_t n) {
  std::vector<T> sums;
  for (std::int64_t i = begin; i < begin + n; ++i) {
    sums.push_back(static_cast<T>(tree_sum(0, size, [&](int rank) {
      return static_cast<float>(static_cast<T>(rank_value(rank, i) * 100));
    })));
  }
  return sums;
}

template <class T>
void check_promised_sums(Communicator& group, std::int64_t n) {
  SCOPED_TRACE(fmt::format("{} of {}", n, dtype_name(kDTypeOf<T>)));
  Stream stream = Stream::cpu(1);
  std::vector<T> x = values_of<T>(group.rank(), n);
  group.all_reduce(stream, view(x));
  EXPECT_TRUE(same_bits(x, promised_sums<T>(group.size(), 0, n))) << "all_reduce";

  std::vector<T> whole = values_of<T>(group.rank(), n * group.size());
  std::vector<T> out(static_cast<std::size_t>(n));
  const std::vector<T> expected = promised_sums<T>(group.size(), n * group.rank(), n);
  group.reduce_scatter(stream, view(out), view(whole));
  EXPECT_TRUE(same_bits(out, expected)) << "reduce_scatter";

  const Tensor slice = view(whole).slice(n * group.rank(), n);
  group.start_reduce_scatter(stream, slice, view(whole)).wait();
  std::copy_n(whole.begin() + n * group.rank(), n, out.begin());
  EXPECT_TRUE(same_bits(out, expected)) << "reduce_scatter to its own slice";
}

/// Rows that rank `from` sends to rank `to`; some pairs have none, and rank 1 sends nothing.
std::int64_t rows_between(int from, int to) { return from == 1 ? 0 : (3 * from + 2 * to) % 4; }

std::vector<std::int64_t> rows_of(int size, const auto& count) {
  std::vector<std::int64_t> rows;
  for (int rank = 0; rank < size; ++rank) rows.push_back(count(rank));
  return rows;
}

void check_rows(Communicator& group, std::int64_t factor, std::int64_t width) {
  Stream stream = Stream::cpu(1);
  const int rank = group.rank();
  const auto x_rows =
      rows_of(group.size(), [&](int to) { return factor * rows_between(rank, to); });
  const auto out_rows =
      rows_of(group.size(), [&](int from) { return factor * rows_between(from, rank); });
  const auto value = [](int from, int to, std::int64_t i) {
    return static_cast<float>(1000000 * from + 100000 * to + i % 100000);
  };
  std::vector<float> x;
  std::vector<float> expected;
  for (int peer = 0; peer < group.size(); ++peer) {
    const auto at = static_cast<std::size_t>(peer);
    for (std::int64_t i = 0; i < x_rows[at] * width; ++i) x.push_back(value(rank, peer, i));
    for (std::int64_t i = 0; i < out_rows[at] * width; ++i)
      expected.push_back(value(peer, rank, i));
  }
  std::vector<float> out(expected.size(), -1);
  const auto total = [](const std::vector<std::int64_t>& rows) {
    return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  };
  const Tensor to(out.data(), DType::f32, {total(out_rows), width});
  const Tensor from(x.data(), DType::f32, {total(x_rows), width});
  group.all_to_all(stream, to, from, out_rows, x_rows);
  EXPECT_EQ(out, expected);

  std::ranges::fill(out, -1.0f);
  PendingCollective pending = group.start_all_to_all(stream, to, from, out_rows, x_rows);
  group.progress();
  pending.wait();
  EXPECT_EQ(out, expected) << "in the background";
}

/// Several messages to the next rank, some longer than a piece, with a collective between the two
/// ends. The group is new, so that the collective's number is a message's too.
void check_ring(Communicator& group, bool sends_first) {
  Stream stream = Stream::cpu(1);
  const int to = (group.rank() + 1) % group.size();
  const int from = (group.rank() + group.size() - 1) % group.size();
  const std::vector<std::int64_t> lengths = {3, 100001, 0, 1, 70000, 5};
  std::vector<std::vector<float>> sent;
  std::vector<std::vector<float>> received;
  std::vector<PendingCollective> pending;
  for (const std::int64_t n : lengths) {
    sent.push_back(values_of<float>(group.rank() + static_cast<int>(sent.size()), n));
    received.emplace_back(static_cast<std::size_t>(n));
  }
  const auto send = [&] {
    for (auto& x : sent) pending.push_back(group.start_send(stream, view(x), to));
  };
  const auto receive = [&] {
    for (auto& out : received) pending.push_back(group.start_receive(stream, view(out), from));
  };
  sends_first ? send() : receive();
  std::vector<float> x(1000, 1);
  group.all_reduce(stream, view(x));
  EXPECT_EQ(x[0], group.size());
  sends_first ? receive() : send();
  for (auto& one : pending) one.wait();
  for (std::size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(received[i], values_of<float>(from + static_cast<int>(i), lengths[i])) << i;
  }
}

}  // namespace

void check_sums(Communicator& group) {
  for (const std::int64_t n : {0, 1, 3, 1025, 70001}) {
    check_promised_sums<float>(group, n);
    check_promised_sums<bfloat16>(group, n);
  }
  Stream stream = Stream::cpu(1);
  const std::int64_t n = 5;
  std::vector<std::int64_t> x(static_cast<std::size_t>(n * group.size()), (1LL << 53) + 1);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  group.reduce_scatter(stream, view(out), view(x));
  for (const std::int64_t sum : out) EXPECT_EQ(sum, group.size() * ((1LL << 53) + 1));
}

void check_sum_order(Communicator& group) {
  // 1 is lost beside 2^24 and 2 is not, so each order of adding has its own sum.
  const float large = 16777216;
  Stream stream = Stream::cpu(1);
  const std::vector<std::vector<float>> addends = {
      {1, large, 1, 1, 1, 1, 1}, {large, 1, 1, 1, -large, 1, 1}, {1, 1, large, 1, 1, 1, -large}};
  for (const auto& values : addends) {
    const auto mine = values[static_cast<std::size_t>(group.rank())];
    std::vector<float> x(3, mine);
    group.all_reduce(stream, view(x));
    const float expected =
        tree_sum(0, group.size(), [&](int rank) { return values[static_cast<std::size_t>(rank)]; });
    for (const float sum : x) EXPECT_EQ(sum, expected);
  }
}

void check_all_to_all(Communicator& group) {
  for (const std::int64_t factor : {0, 1, 700}) {
    for (const std::int64_t width : {1, 5, 129}) {
      SCOPED_TRACE(fmt::format("{} times the rows of {}", factor, width));
      check_rows(group, factor, width);
    }
  }
}

void check_gather_in_the_background(Communicator& group) {
  Stream stream = Stream::cpu(1);
  const std::int64_t n = 100003;
  std::vector<float> x = values_of<float>(group.rank(), n);
  std::vector<float> out(static_cast<std::size_t>(n * group.size()));
  PendingCollective pending = group.start_all_gather(stream, view(out), view(x));
  group.progress();
  group.barrier();
  pending.wait();
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto begin = out.begin() + n * rank;
    EXPECT_EQ(std::vector<float>(begin, begin + n), values_of<float>(rank, n));
  }
}

void check_messages(Communicator& group) {
  if (group.size() == 1) return;
  check_ring(*group.split("pp", 0), true);
  check_ring(*group.split("pp", 0), false);

  Stream stream = Stream::cpu(1);
  std::vector<float> x(static_cast<std::size_t>(group.size()), static_cast<float>(group.rank()));
  if (group.rank() > 0) group.start_send(stream, view(x).slice(0, 1), 0).wait();
  for (int from = 1; from < group.size() && group.rank() == 0; ++from) {
    group.start_receive(stream, view(x).slice(from, 1), from).wait();
    EXPECT_EQ(x[static_cast<std::size_t>(from)], from);
  }
}

void check_splits(Communicator& group) {
  Stream stream = Stream::cpu(1);
  const int columns = group.size() % 2 == 0 ? 2 : 1;
  const int row = group.rank() / columns;
  const int column = group.rank() % columns;
  const auto across = group.split("tp", row);
  const auto down = group.split("dp", column);
  ASSERT_EQ(across->size(), columns);
  ASSERT_EQ(across->rank(), column);
  ASSERT_EQ(across->axis(), "tp");
  ASSERT_EQ(down->size(), group.size() / columns);
  ASSERT_EQ(down->rank(), row);

  const std::int64_t n = 150000;
  const auto filled = [&] { return std::vector<float>(n, static_cast<float>(1 + group.rank())); };
  std::vector<float> a = filled(), b = filled(), c = filled();
  PendingCollective first = across->start_all_reduce(stream, view(a));
  PendingCollective second = down->start_all_reduce(stream, view(b));
  PendingCollective third = group.start_all_reduce(stream, view(c));
  group.progress();
  // Ranks need not wait for the groups in one order.
  if (group.rank() % 2 == 0) {
    second.wait();
    first.wait();
  } else {
    first.wait();
    second.wait();
  }
  third.wait();
  float across_sum = 0;
  float down_sum = 0;
  for (int i = 0; i < columns; ++i) across_sum += static_cast<float>(1 + row * columns + i);
  for (int i = 0; i < down->size(); ++i) down_sum += static_cast<float>(1 + i * columns + column);
  const int p = group.size();
  EXPECT_EQ(a, std::vector<float>(n, across_sum));
  EXPECT_EQ(b, std::vector<float>(n, down_sum));
  const int sum = p * (p + 1) / 2;
  EXPECT_EQ(c, std::vector<float>(n, static_cast<float>(sum)));

  const auto alone = down->split("one", down->rank());
  EXPECT_EQ(alone->size(), 1);
  alone->barrier();
}

void check_bytes_sent(Communicator& group) {
  Stream stream = Stream::cpu(1);
  const std::int64_t p = group.size();
  const std::int64_t rank = group.rank();
  const auto sent_by = [&](const auto& operation) {
    const std::int64_t before = group.bytes_sent();
    operation();
    return group.bytes_sent() - before;
  };
  std::vector<float> x(1003);
  const std::int64_t mine = 1003 * (rank + 1) / p - 1003 * rank / p;
  EXPECT_EQ(sent_by([&] { group.all_reduce(stream, view(x)); }),
            4 * ((1003 - mine) + mine * (p - 1)));
  std::vector<bfloat16> halves(static_cast<std::size_t>(7 * p));
  std::vector<bfloat16> out(7);
  EXPECT_EQ(sent_by([&] { group.reduce_scatter(stream, view(out), view(halves)); }),
            2 * 7 * (p - 1));
  EXPECT_EQ(sent_by([&] { group.all_gather(stream, view(halves), view(out)); }), 2 * 7 * (p - 1));
  EXPECT_EQ(sent_by([&] { group.broadcast(stream, view(x), 0); }),
            rank == 0 ? 4 * 1003 * (p - 1) : 0);
  EXPECT_EQ(sent_by([&] { group.barrier(); }), 0);

  const std::vector<std::int64_t> rows(static_cast<std::size_t>(p), 2);
  std::vector<std::int64_t> from(static_cast<std::size_t>(2 * p * 3));
  std::vector<std::int64_t> to(from.size());
  const auto matrix = [&](auto& values) { return Tensor(values.data(), DType::i64, {2 * p, 3}); };
  EXPECT_EQ(sent_by([&] { group.all_to_all(stream, matrix(to), matrix(from), rows, rows); }),
            8 * 3 * 2 * (p - 1));
  if (p == 1) return;
  const int next = static_cast<int>((rank + 1) % p);
  const int previous = static_cast<int>((rank + p - 1) % p);
  std::vector<float> received(x.size());
  EXPECT_EQ(sent_by([&] {
              PendingCollective sent = group.start_send(stream, view(x), next);
              group.start_receive(stream, view(received), previous).wait();
              sent.wait();
            }),
            4 * 1003);
}

}  // namespace jamba::test
