// Groups of ranks on NCCL.
//
// The discipline of streams. Each group has streams of its own, of high priority. An operation's
// stream waits for what was issued to the caller's stream so far, and the caller's stream waits for
// the operation where the caller waits for it, so tensors pass between them as Stream says. One
// thread issues everything, in the order of the program, which is the same on all ranks: so
// communicators that share a device are issued to in one order everywhere, as NCCL asks
// (NCCL_LAUNCH_ORDER_IMPLICIT makes it keep that order on the device too). Messages up and down the
// ranks have a communicator and a stream each: a stage of a pipeline that waits for its successor's
// gradient must not hold up what it sends there.

#include <fmt/format.h>
#include <nccl.h>

#include <cstdlib>
#include <deque>
#include <numeric>
#include <optional>
#include <thread>

#include "kernels/core/clock.h"
#include "kernels/core/cuda/event.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/memory.h"
#include "kernels/core/trace.h"
#include "parallel/comm/device_group.h"
#include "parallel/comm/reduce_cuda.h"

namespace jamba::cuda {

namespace {

/// An NCCL communicator with its stream.
class Channel {
 public:
  Channel(Communicator& group, Device device, const char* purpose)
      : group_(group), purpose_(purpose), stream_(Stream::on(device, 1, StreamPriority::high)) {
    ncclUniqueId id{};
    if (group.rank() == 0) check(ncclGetUniqueId(&id), "making an id");
    Stream host = Stream::cpu(1);
    group.broadcast(host, Tensor(id.internal, DType::u8, {NCCL_UNIQUE_ID_BYTES}), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    try {
      check(ncclCommInitRankConfig(&comm_, group.size(), id, group.rank(), &config), "starting");
      settle("starting");
    } catch (...) {
      abort();
      throw;
    }
  }
  ~Channel() {
    if (comm_ != nullptr) static_cast<void>(ncclCommDestroy(comm_));
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Stream& stream() { return stream_; }
  ncclComm_t comm() const { return comm_; }

  /// Calls of one operation, issued as one.
  template <class F>
  void issue(const std::string& what, F&& f) {
    if (comm_ == nullptr)
      throw CommError(fmt::format("{} over {} ({}): the group is unusable after an error", what,
                                  group_.axis(), purpose_));
    check(ncclGroupStart(), what);
    try {
      f();
    } catch (...) {
      static_cast<void>(ncclGroupEnd());  // or later calls would still belong to it
      throw;
    }
    check(ncclGroupEnd(), what);
    settle(what);
  }
  void check(ncclResult_t result, const std::string& what) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    throw CommError(fmt::format("{} over {} ({}): NCCL: {}", what, group_.axis(), purpose_,
                                ncclGetErrorString(result)));
  }

  /// An operation was issued, whose turn comes at `ready` and which ends at `done`.
  void track(std::shared_ptr<Event> ready, std::shared_ptr<Event> done, std::string what) {
    in_flight_.push_back({std::move(ready), std::move(done), std::move(what), {}});
  }
  /// Operations end in the order in which they were issued.
  void drop_finished() {
    while (!in_flight_.empty() && in_flight_.front().done->reached()) in_flight_.pop_front();
  }
  /// Ends what is in flight, whoever has not come to it, and the channel.
  void abort() noexcept {
    if (comm_ != nullptr) static_cast<void>(ncclCommAbort(comm_));
    comm_ = nullptr;
    in_flight_.clear();
  }
  /// Throws if something went wrong in the background, or other ranks do not come.
  void look() {
    drop_finished();
    if (in_flight_.empty()) return;
    InFlight& first = in_flight_.front();
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &state), first.what);
    check(state, first.what);
    // What this rank's device still computes before it is not waiting for others.
    if (!first.begin && first.ready->reached()) first.begin = Clock::now();
    const double limit = group_.guards().timeout_seconds;
    if (limit > 0 && first.begin && seconds_since(*first.begin) > limit)
      fail_timeout(first.what, limit);
  }

 private:
  struct InFlight {
    std::shared_ptr<Event> ready, done;
    std::string what;
    std::optional<Clock::time_point> begin;  // when it was first seen to be ready
  };

  [[noreturn]] void fail_timeout(const std::string& what, double seconds) {
    throw CommError(fmt::format("{} over {} ({}): waited {:.1f} s for other ranks", what,
                                group_.axis(), purpose_, seconds));
  }
  /// Calls return before they have taken effect; the next may only come after.
  void settle(const std::string& what) {
    const Clock::time_point begin = Clock::now();
    for (;;) {
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(comm_, &state), what);
      if (state != ncclInProgress) return check(state, what);
      const double limit = group_.guards().timeout_seconds;
      if (limit > 0 && seconds_since(begin) > limit) fail_timeout(what, limit);
      std::this_thread::yield();
    }
  }

  Communicator& group_;
  const char* purpose_;
  Stream stream_;
  ncclComm_t comm_ = nullptr;
  std::deque<InFlight> in_flight_;
};

class NcclOperation final : public RunningOperation {
 public:
  NcclOperation(Stream& stream, std::shared_ptr<Event> done)
      : stream_(stream), done_(std::move(done)) {}
  void finish() override { done_->hold_up(stream_); }

 private:
  Stream& stream_;
  std::shared_ptr<Event> done_;
};

/// Part of a tensor, as bytes.
struct Piece {
  char* data;
  std::int64_t bytes;
};

class NcclGroup final : public DeviceGroup, private WaitWatcher {
 public:
  NcclGroup(Communicator& group, Stream& stream, Messages messages)
      : group_(group), collectives_(group, stream.device(), "collectives") {
    if (messages == Messages::some) {
      up_ = std::make_unique<Channel>(group, stream.device(), "messages up");
      down_ = std::make_unique<Channel>(group, stream.device(), "messages down");
    }
  }

  std::unique_ptr<RunningOperation> start(Stream& stream, const Operation& op) override {
    Channel& channel = channel_of(op);
    // While the host waits for this stream, it looks after what other ranks may never do.
    watch_waits(stream, as_watcher_);
    for_each_channel([](Channel& c) { c.drop_finished(); });
    channel.stream().wait_for(stream);
    const std::shared_ptr<Event> ready = free_event();
    ready->record(channel.stream());
    try {
      carry_out(channel, op);
    } catch (const CommError&) {
      give_up();
      throw;
    }
    const std::shared_ptr<Event> done = free_event();
    done->record(channel.stream());
    channel.track(ready, done, op.describe());
    return std::make_unique<NcclOperation>(stream, done);
  }

 private:
  Channel& channel_of(const Operation& op) {
    if (!op.is_message()) return collectives_;
    JAMBA_CHECK(up_ != nullptr, "{} over {}: the group was prepared without messages",
                op.describe(), group_.axis());
    const bool up = (op.kind == OperationKind::send) == (op.peer > group_.rank());
    return up ? *up_ : *down_;
  }

  template <class F>
  void for_each_channel(F&& f) {
    for (Channel* const channel : {&collectives_, up_.get(), down_.get()})
      if (channel != nullptr) f(*channel);
  }

  void look() override {
    for_each_channel([](Channel& c) { c.look(); });
  }
  void give_up() noexcept override {
    for_each_channel([](Channel& c) { c.abort(); });
  }

  /// One that nobody looks at any more.
  std::shared_ptr<Event> free_event() {
    for (const std::shared_ptr<Event>& event : events_) {
      if (event.use_count() == 1) return event;
    }
    return events_.emplace_back(std::make_shared<Event>());
  }

  void send(Channel& c, const Piece& piece, int to) {
    if (piece.bytes == 0) return;
    c.check(ncclSend(piece.data, static_cast<std::size_t>(piece.bytes), ncclUint8, to, c.comm(),
                     native(c.stream())),
            "sending");
  }
  void receive(Channel& c, const Piece& piece, int from) {
    if (piece.bytes == 0) return;
    c.check(ncclRecv(piece.data, static_cast<std::size_t>(piece.bytes), ncclUint8, from, c.comm(),
                     native(c.stream())),
            "receiving");
  }

  /// Every rank's piece for every other: sent(r) goes to rank r, received(r) comes from there.
  template <class Sent, class Received>
  void exchange(Channel& c, const Operation& op, Sent&& sent, Received&& received) {
    c.issue(op.describe(), [&] {
      for (int r = 0; r < group_.size(); ++r) {
        if (r == group_.rank()) continue;
        send(c, sent(r), r);
        receive(c, received(r), r);
      }
    });
  }

  char* scratch(std::int64_t bytes) {
    if (scratch_.bytes() < bytes)
      scratch_ = Buffer(bytes, collectives_.stream().device(), Fill::untouched);
    return static_cast<char*>(scratch_.data());
  }

  /// out = this rank's slice of the sum; slice(r) of x is what rank r sums.
  template <class Slice>
  void sum_slice(Channel& c, const Operation& op, void* out, Slice&& slice) {
    const Piece mine = slice(group_.rank());
    char* const parts = scratch(group_.size() * mine.bytes);
    exchange(c, op, slice, [&](int r) { return Piece{parts + r * mine.bytes, mine.bytes}; });
    reduce_parts(c.stream(), op.x.dtype(), out, parts, mine.data, group_.rank(), group_.size(),
                 mine.bytes / dtype_bytes(op.x.dtype()));
  }

  void carry_out(Channel& c, const Operation& op) {
    const auto bytes = [](const Tensor& t) { return static_cast<std::size_t>(t.bytes()); };
    switch (op.kind) {
      case OperationKind::all_reduce:
        return all_reduce(c, op);
      case OperationKind::reduce_scatter:
        return reduce_scatter(c, op);
      case OperationKind::all_gather:
        return c.issue(op.describe(), [&] {
          c.check(ncclAllGather(op.x.raw(), op.out.raw(), bytes(op.x), ncclUint8, c.comm(),
                                native(c.stream())),
                  op.describe());
        });
      case OperationKind::all_to_all:
        return all_to_all(c, op);
      case OperationKind::broadcast:
        return c.issue(op.describe(), [&] {
          c.check(ncclBroadcast(op.x.raw(), op.x.raw(), bytes(op.x), ncclUint8, op.peer, c.comm(),
                                native(c.stream())),
                  op.describe());
        });
      case OperationKind::send:
        return c.issue(op.describe(), [&] { send(c, whole(op.x), op.peer); });
      case OperationKind::receive:
        return c.issue(op.describe(), [&] { receive(c, whole(op.out), op.peer); });
      case OperationKind::barrier:
        break;
    }
    throw LogicError("no such operation on a device");
  }

  static Piece whole(const Tensor& t) { return {static_cast<char*>(t.raw()), t.bytes()}; }

  static bool sums_floats(const Operation& op) {
    return op.reduce == ReduceOp::sum && op.x.dtype() != DType::i64;
  }
  static ncclDataType_t type_of(const Tensor& t) {
    return t.dtype() == DType::i64 ? ncclInt64 : ncclFloat32;
  }

  void all_reduce(Channel& c, const Operation& op) {
    if (op.x.numel() == 0) return;
    if (!sums_floats(op)) {  // any order gives the same bits
      return c.issue(op.describe(), [&] {
        c.check(ncclAllReduce(op.x.raw(), op.x.raw(), static_cast<std::size_t>(op.x.numel()),
                              type_of(op.x), op.reduce == ReduceOp::sum ? ncclSum : ncclMax,
                              c.comm(), native(c.stream())),
                op.describe());
      });
    }
    const std::int64_t element = dtype_bytes(op.x.dtype());
    const auto piece = [&](int r) {
      const std::int64_t begin = piece_begin(op.x.numel(), r, group_.size());
      const std::int64_t end = piece_begin(op.x.numel(), r + 1, group_.size());
      return Piece{static_cast<char*>(op.x.raw()) + begin * element, (end - begin) * element};
    };
    const Piece mine = piece(group_.rank());
    sum_slice(c, op, mine.data, piece);
    exchange(
        c, op, [&](int) { return mine; }, piece);
  }

  void reduce_scatter(Channel& c, const Operation& op) {
    if (op.out.numel() == 0) return;
    if (!sums_floats(op)) {
      return c.issue(op.describe(), [&] {
        c.check(
            ncclReduceScatter(op.x.raw(), op.out.raw(), static_cast<std::size_t>(op.out.numel()),
                              type_of(op.x), ncclSum, c.comm(), native(c.stream())),
            op.describe());
      });
    }
    sum_slice(c, op, op.out.raw(), [&](int r) {
      return Piece{static_cast<char*>(op.x.raw()) + r * op.out.bytes(), op.out.bytes()};
    });
  }

  void all_to_all(Channel& c, const Operation& op) {
    const auto piece = [](const Tensor& t, std::span<const std::int64_t> rows, int r) {
      const std::int64_t before =
          std::accumulate(rows.begin(), rows.begin() + r, std::int64_t{0}) * row_bytes(t);
      return Piece{static_cast<char*>(t.raw()) + before,
                   rows[static_cast<std::size_t>(r)] * row_bytes(t)};
    };
    const int rank = group_.rank();
    copy_bytes(c.stream(), piece(op.out, op.out_rows, rank).data, piece(op.x, op.x_rows, rank).data,
               piece(op.x, op.x_rows, rank).bytes);
    exchange(
        c, op, [&](int r) { return piece(op.x, op.x_rows, r); },
        [&](int r) { return piece(op.out, op.out_rows, r); });
  }

  Communicator& group_;
  // Freeing them waits for the device, so the channels go first.
  Buffer scratch_;  // of collectives, which run one after the other
  std::vector<std::shared_ptr<Event>> events_;
  Channel collectives_;
  std::unique_ptr<Channel> up_, down_;
  const std::shared_ptr<WaitWatcher> as_watcher_{static_cast<WaitWatcher*>(this),
                                                 [](WaitWatcher*) {}};
};

}  // namespace

std::unique_ptr<DeviceGroup> make_device_group(Communicator& group, Stream& stream,
                                               Messages messages) {
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
  return std::make_unique<NcclGroup>(group, stream, messages);
}

std::string collectives_library_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "NCCL of an unknown version";
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace jamba::cuda
