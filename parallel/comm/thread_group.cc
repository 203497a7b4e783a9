#include "parallel/comm/thread_group.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/core/memory.h"
#include "kernels/core/profile.h"
#include "parallel/comm/arguments.h"

namespace jamba {

namespace {

/// What one rank asked for. All ranks' calls must agree in everything but the addresses.
struct Call {
  std::string_view op{};
  Tensor x{};
  int root = -1;

  bool matches(const Call& other) const {
    return op == other.op && root == other.root && x.dtype() == other.x.dtype() &&
           (x.absent() || x.numel() == other.x.numel());
  }
  std::string describe() const {
    return std::string(op) + (x.present() ? " of " + x.describe() : "") +
           (root >= 0 ? fmt::format(" from rank {}", root) : "");
  }
};

/// The meeting place of the ranks. A collective is: enter(), which publishes this rank's call and
/// waits for all the others; then reading and writing what the calls name; then leave(), after
/// which the tensors are their owners' again.
class Rendezvous {
 public:
  explicit Rendezvous(int size) : calls_(static_cast<std::size_t>(size)) {}

  int size() const { return static_cast<int>(calls_.size()); }
  const Call& call(int rank) const { return calls_[static_cast<std::size_t>(rank)]; }

  void enter(int rank, const Call& mine) {
    calls_[static_cast<std::size_t>(rank)] = mine;
    meet(mine);
    for (int peer = 0; peer < size(); ++peer) {
      if (call(peer).matches(call(0))) continue;
      throw CommError(
          fmt::format("ranks disagree on a collective: rank 0 calls {}, rank {} calls {}",
                      call(0).describe(), peer, call(peer).describe()));
    }
  }
  void leave(const Call& mine) { meet(mine); }

  /// This rank's body has ended; anyone who still waits for it never will see it.
  void finish(int rank, const std::exception_ptr& error, const std::string& message) {
    const std::lock_guard lock(mutex_);
    if (error && !error_) {
      error_ = error;
      broken_ = fmt::format("rank {} failed: {}", rank, message);
    } else if (broken_.empty()) {
      broken_ = fmt::format("rank {} has left the group", rank);
    }
    woken_.notify_all();
  }

  void rethrow_first() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void meet(const Call& mine) {
    std::unique_lock lock(mutex_);
    const std::int64_t round = round_;
    if (!broken_.empty()) throw CommError(fmt::format("{}: {}", mine.describe(), broken_));
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++round_;
      woken_.notify_all();
      return;
    }
    woken_.wait(lock, [&] { return round_ != round || !broken_.empty(); });
    if (round_ == round) throw CommError(fmt::format("{}: {}", mine.describe(), broken_));
  }

  std::vector<Call> calls_;
  std::mutex mutex_;
  std::condition_variable woken_;
  int arrived_ = 0;
  std::int64_t round_ = 0;
  std::string broken_;
  std::exception_ptr error_;
};

/// Elements [begin, end) of every rank's x become their reduction in rank order.
template <class T>
void reduce_range(const Rendezvous& group, std::int64_t begin, std::int64_t end, ReduceOp op) {
  for (std::int64_t i = begin; i < end; ++i) {
    T total = group.call(0).x.ptr<T>()[i];
    for (int rank = 1; rank < group.size(); ++rank) {
      const T value = group.call(rank).x.ptr<T>()[i];
      total = op == ReduceOp::sum ? total + value : std::max(total, value);
    }
    for (int rank = 0; rank < group.size(); ++rank) group.call(rank).x.ptr<T>()[i] = total;
  }
}

/// x = reduction of every rank's x; each rank computes its share of the elements for all.
void reduce(Rendezvous& group, int rank, const Tensor& x, ReduceOp op) {
  const Call mine{.op = op == ReduceOp::sum ? "all_reduce sum" : "all_reduce max", .x = x};
  group.enter(rank, mine);
  const std::int64_t begin = x.numel() * rank / group.size();
  const std::int64_t end = x.numel() * (rank + 1) / group.size();
  if (x.dtype() == DType::f32) {
    reduce_range<float>(group, begin, end, op);
  } else {
    reduce_range<std::int64_t>(group, begin, end, op);
  }
  group.leave(mine);
}

void copy_bytes(void* to, const Tensor& from) {
  const auto bytes = static_cast<std::size_t>(from.bytes());
  if (bytes > 0 && to != from.raw()) std::memcpy(to, from.raw(), bytes);
}

/// Takes its input when it starts and writes its output when it is waited for. Between the two the
/// tensor holds NaN, so that a test sees a gradient that is read too early or added too late.
class PendingReduction final : public PendingCollective {
 public:
  PendingReduction(Rendezvous& group, int rank, Tensor x, ReduceOp op)
      : group_(group), rank_(rank), x_(x), op_(op), input_(x.bytes()) {
    copy_bytes(input_.data(), x);
    if (x.bytes() > 0) std::memset(x.raw(), 0xff, static_cast<std::size_t>(x.bytes()));
  }

  void wait() override {
    const Tensor input = input_.tensor(x_.dtype(), {x_.numel()});
    reduce(group_, rank_, input, op_);
    copy_bytes(x_.raw(), input);
  }

 private:
  Rendezvous& group_;
  int rank_;
  Tensor x_;
  ReduceOp op_;
  Buffer input_;
};

class FinishedCollective final : public PendingCollective {
 public:
  void wait() override {}
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(Rendezvous& group, int rank) : group_(group), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }

  void all_reduce(Stream& stream, Tensor x, ReduceOp op) override {
    check_reduce("all_reduce", x);
    const ProfileScope timer(stream.profile(), Part::communication);
    reduce(group_, rank_, x, op);
  }

  std::unique_ptr<PendingCollective> start_all_reduce(Stream&, Tensor x, ReduceOp op) override {
    check_reduce("start_all_reduce", x);
    if (size() == 1) return std::make_unique<FinishedCollective>();
    return std::make_unique<PendingReduction>(group_, rank_, x, op);
  }

  void progress() override {}

  void all_gather(Stream& stream, Tensor out, Tensor x) override {
    check_all_gather(out, x, size());
    const ProfileScope timer(stream.profile(), Part::communication);
    const Call mine{.op = "all_gather", .x = x};
    group_.enter(rank_, mine);
    for (int rank = 0; rank < size(); ++rank) {
      copy_bytes(gathered_slice(out, x, rank).raw(), group_.call(rank).x);
    }
    group_.leave(mine);
  }

  void broadcast(Stream& stream, Tensor x, int root) override {
    check_broadcast(x, root, size());
    const ProfileScope timer(stream.profile(), Part::communication);
    const Call mine{.op = "broadcast", .x = x, .root = root};
    group_.enter(rank_, mine);
    copy_bytes(x.raw(), group_.call(root).x);
    group_.leave(mine);
  }

  void barrier() override {
    const Call mine{.op = "barrier"};
    group_.enter(rank_, mine);
    group_.leave(mine);
  }

 private:
  Rendezvous& group_;
  int rank_;
};

struct SingleRankRendezvous {
  Rendezvous rendezvous{1};
};

/// A group of one owns its meeting place, which must exist before the communicator on it.
class SingleRank final : private SingleRankRendezvous, public ThreadCommunicator {
 public:
  SingleRank() : ThreadCommunicator(rendezvous, 0) {}
};

void run_rank(Rendezvous& group, int rank, const std::function<void(Communicator&)>& body) {
  ThreadCommunicator communicator(group, rank);
  try {
    body(communicator);
    group.finish(rank, nullptr, "");
  } catch (const std::exception& error) {
    group.finish(rank, std::current_exception(), error.what());
  } catch (...) {
    group.finish(rank, std::current_exception(), "an unknown exception");
  }
}

}  // namespace

void run_ranks(int size, const std::function<void(Communicator&)>& body) {
  JAMBA_CHECK(size >= 1, "a group needs at least one rank, got {}", size);
  Rendezvous group(size);
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&group, &body, rank] { run_rank(group, rank, body); });
    }
  }
  group.rethrow_first();
}

std::unique_ptr<Communicator> make_single_rank() { return std::make_unique<SingleRank>(); }

}  // namespace jamba
