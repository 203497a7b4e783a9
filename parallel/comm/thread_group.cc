#include "parallel/comm/thread_group.h"

#include <cstring>
#include <numeric>
#include <thread>

#include "parallel/comm/reduce.h"
#include "parallel/comm/thread_board.h"

namespace jamba {

namespace {

std::byte* bytes_of(const Tensor& x) { return static_cast<std::byte*>(x.raw()); }
const std::byte* bytes_of(const ThreadPost& post) {
  return static_cast<const std::byte*>(post.input.data());
}

ThreadPost post_of(const Operation& op, int size) {
  ThreadPost post{.call = call_of(op), .rows = call_rows(op, size), .input = Buffer(op.x.bytes())};
  copy_bytes(post.input.data(), op.x.raw(), op.x.bytes());
  return post;
}

/// The tensor that the operation writes on this rank.
Tensor output_of(const Operation& op, int rank) {
  if (op.kind == OperationKind::all_reduce) return op.x;
  if (op.kind == OperationKind::broadcast) return rank == op.peer ? Tensor() : op.x;
  return op.out;
}

/// This rank's output from all ranks' posts.
void collect(Stream& stream, const Operation& op, int rank, const std::vector<ThreadPost>& posts) {
  std::byte* out = bytes_of(output_of(op, rank));
  if (op.kind == OperationKind::all_reduce || op.kind == OperationKind::reduce_scatter) {
    const bool whole = op.kind == OperationKind::all_reduce;
    std::vector<const std::byte*> parts;
    for (const ThreadPost& post : posts) {
      parts.push_back(bytes_of(post) + (whole ? 0 : rank * op.out.bytes()));
    }
    reduce_parts(stream, op.x.dtype(), op.reduce, out, parts,
                 whole ? op.x.numel() : op.out.numel());
    return;
  }
  if (op.kind == OperationKind::broadcast) {
    if (rank != op.peer)
      copy_bytes(out, bytes_of(posts[static_cast<std::size_t>(op.peer)]), op.x.bytes());
    return;
  }
  for (const ThreadPost& post : posts) {
    std::int64_t begin = 0;
    std::int64_t count = op.x.bytes();
    if (op.kind == OperationKind::all_to_all) {
      const auto sends = post.rows.begin() + static_cast<std::ptrdiff_t>(posts.size());
      begin = std::accumulate(sends, sends + rank, std::int64_t{0}) * row_bytes(op.x);
      count = sends[rank] * row_bytes(op.x);
    }
    copy_bytes(out, bytes_of(post) + begin, count);
    out += count;
  }
}

class ThreadCollective final : public RunningOperation {
 public:
  ThreadCollective(const Communicator& ranks, ThreadBoard& board, Stream& stream,
                   const Operation& op, std::int64_t meeting)
      : ranks_(ranks), board_(board), stream_(stream), op_(op), meeting_(meeting) {
    board.post(meeting, ranks.rank(), post_of(op, ranks.size()));
    const Tensor out = output_of(op, ranks.rank());
    if (out.bytes() > 0) std::memset(out.raw(), 0xff, static_cast<std::size_t>(out.bytes()));
  }

  void finish() override {
    const ThreadWait waiting{op_, ranks_.axis(), ranks_.guards().timeout_seconds};
    collect(stream_, op_, ranks_.rank(), board_.meet(meeting_, waiting));
    board_.leave(meeting_);
  }

 private:
  const Communicator& ranks_;
  ThreadBoard& board_;
  Stream& stream_;
  Operation op_;
  std::int64_t meeting_;
};

class ThreadMessage final : public RunningOperation {
 public:
  ThreadMessage(const Communicator& ranks, ThreadBoard& board, const Operation& op)
      : ranks_(ranks), board_(board), op_(op) {
    if (op.kind == OperationKind::send) {
      board.send(ranks.rank(), post_of(op, ranks.size()));
    } else if (op.out.bytes() > 0) {
      std::memset(op.out.raw(), 0xff, static_cast<std::size_t>(op.out.bytes()));
    }
  }

  void finish() override {
    if (op_.kind == OperationKind::send) return;
    const ThreadWait waiting{op_, ranks_.axis(), ranks_.guards().timeout_seconds};
    const ThreadPost message = board_.receive(ranks_.rank(), waiting);
    copy_bytes(op_.out.raw(), bytes_of(message), op_.out.bytes());
  }

 private:
  const Communicator& ranks_;
  ThreadBoard& board_;
  Operation op_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(const std::string& axis, int rank, std::shared_ptr<ThreadBoard> board)
      : Communicator(axis, rank, board->size()), board_(std::move(board)) {}

  void progress() override {}

 protected:
  std::unique_ptr<RunningOperation> start(Stream& stream, const Operation& op) override {
    if (op.is_message()) return std::make_unique<ThreadMessage>(*this, *board_, op);
    return std::make_unique<ThreadCollective>(*this, *board_, stream, op, ++num_meetings_);
  }

  std::unique_ptr<Communicator> do_split(const std::string& axis, int color) override {
    std::int64_t value = color;
    const Operation op{.kind = OperationKind::all_gather, .x = Tensor(&value, DType::i64, {1})};
    board_->post(++num_meetings_, rank(), post_of(op, size()));
    const auto& posts = board_->meet(num_meetings_, {op, this->axis(), guards().timeout_seconds});
    std::vector<int> members;
    int place = 0;
    for (int peer = 0; peer < size(); ++peer) {
      std::int64_t theirs = 0;
      std::memcpy(&theirs, bytes_of(posts[static_cast<std::size_t>(peer)]), sizeof(theirs));
      if (peer == rank()) place = static_cast<int>(members.size());
      if (theirs == color) members.push_back(peer);
    }
    auto part = std::make_unique<ThreadCommunicator>(axis, place,
                                                     board_->part(num_meetings_, color, members));
    board_->leave(num_meetings_);
    return part;
  }

 private:
  std::shared_ptr<ThreadBoard> board_;
  std::int64_t num_meetings_ = 0;
};

class SingleRank final : public Communicator {
 public:
  explicit SingleRank(const std::string& axis) : Communicator(axis, 0, 1) {}
  void progress() override {}

 protected:
  std::unique_ptr<RunningOperation> start(Stream&, const Operation& op) override {
    throw LogicError(fmt::format("a group of one has nothing to start for {}", op.describe()));
  }
  std::unique_ptr<Communicator> do_split(const std::string& axis, int) override {
    return std::make_unique<SingleRank>(axis);
  }
};

void run_rank(ThreadFamily& family, Communicator& ranks,
              const std::function<void(Communicator&)>& body) {
  try {
    body(ranks);
    family.leave(ranks.rank(), nullptr, "");
  } catch (const std::exception& error) {
    family.leave(ranks.rank(), std::current_exception(), error.what());
  } catch (...) {
    family.leave(ranks.rank(), std::current_exception(), "an unknown exception");
  }
}

}  // namespace

void run_ranks(int size, const std::function<void(Communicator&)>& body, const CommGuards& guards) {
  JAMBA_CHECK(size >= 1, "a group needs at least one rank, got {}", size);
  ThreadFamily family(size);
  std::vector<int> all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  const auto board = std::make_shared<ThreadBoard>(family, all);
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        ThreadCommunicator world("world", rank, board);
        world.set_guards(guards);
        run_rank(family, world, body);
      });
    }
  }
  if (family.error) std::rethrow_exception(family.error);
}

std::unique_ptr<Communicator> make_single_rank() { return std::make_unique<SingleRank>("world"); }

}  // namespace jamba
