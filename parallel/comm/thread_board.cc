#include "parallel/comm/thread_board.h"

#include <chrono>
#include <cmath>

namespace jamba {

void ThreadFamily::leave(int rank, const std::exception_ptr& rank_error,
                         const std::string& message) {
  const std::lock_guard lock(mutex);
  left[static_cast<std::size_t>(rank)] = true;
  if (rank_error && !error) {
    error = rank_error;
    failure = fmt::format("rank {} failed: {}", rank, message);
  }
  changed.notify_all();
}

ThreadBoard::Meeting& ThreadBoard::meeting(std::int64_t number) {
  return meetings_.try_emplace(number, world_ranks_.size()).first->second;
}

void ThreadBoard::post(std::int64_t number, int rank, ThreadPost post) {
  const std::lock_guard lock(family_.mutex);
  Meeting& here = meeting(number);
  here.posts[static_cast<std::size_t>(rank)] = std::move(post);
  here.here[static_cast<std::size_t>(rank)] = true;
  family_.changed.notify_all();
}

const std::vector<ThreadPost>& ThreadBoard::meet(std::int64_t number, const ThreadWait& waiting) {
  std::unique_lock lock(family_.mutex);
  Meeting& here = meeting(number);
  wait(lock, waiting, [&] {
    std::vector<int> missing;
    for (int rank = 0; rank < size(); ++rank) {
      if (!here.here[static_cast<std::size_t>(rank)]) missing.push_back(rank);
    }
    return missing;
  });
  std::vector<Call> calls;
  std::vector<std::int64_t> rows;
  for (const ThreadPost& post : here.posts) {
    calls.push_back(post.call);
    rows.insert(rows.end(), post.rows.begin(), post.rows.end());
  }
  const std::string problem = disagreement(calls, rows);
  if (!problem.empty()) throw CommError(fmt::format("{}: {}", waiting.axis, problem));
  return here.posts;
}

void ThreadBoard::leave(std::int64_t number) {
  const std::lock_guard lock(family_.mutex);
  Meeting& here = meeting(number);
  if (++here.num_read == here.posts.size()) meetings_.erase(number);
}

std::shared_ptr<ThreadBoard> ThreadBoard::part(std::int64_t number, int color,
                                               const std::vector<int>& ranks) {
  const std::lock_guard lock(family_.mutex);
  std::shared_ptr<ThreadBoard>& board = meeting(number).parts[color];
  if (!board) {
    std::vector<int> world_ranks;
    for (const int rank : ranks)
      world_ranks.push_back(world_ranks_[static_cast<std::size_t>(rank)]);
    board = std::make_shared<ThreadBoard>(family_, std::move(world_ranks));
  }
  return board;
}

void ThreadBoard::send(int from, ThreadPost post) {
  const std::lock_guard lock(family_.mutex);
  const Address address{from, post.call.peer, post.call.number};
  messages_[address] = std::move(post);
  family_.changed.notify_all();
}

ThreadPost ThreadBoard::receive(int to, const ThreadWait& waiting) {
  const int from = waiting.op.peer;
  const Address address{from, to, waiting.op.number};
  std::unique_lock lock(family_.mutex);
  wait(lock, waiting,
       [&] { return messages_.contains(address) ? std::vector<int>{} : std::vector<int>{from}; });
  ThreadPost message = std::move(messages_.extract(address).mapped());
  const std::string problem = disagreement(message.call, from, call_of(waiting.op), to);
  if (!problem.empty()) throw CommError(fmt::format("{}: {}", waiting.axis, problem));
  return message;
}

void ThreadBoard::fail_if_hopeless(const ThreadWait& waiting,
                                   const std::vector<int>& missing) const {
  const std::string what = waiting.op.describe();
  if (!family_.failure.empty()) throw CommError(fmt::format("{}: {}", what, family_.failure));
  for (const int rank : missing) {
    const int world_rank = world_ranks_[static_cast<std::size_t>(rank)];
    if (!family_.left[static_cast<std::size_t>(world_rank)]) continue;
    throw CommError(fmt::format("{}: rank {} has left the group", what, rank));
  }
}

void ThreadBoard::wait(std::unique_lock<std::mutex>& lock, const ThreadWait& waiting,
                       const std::function<std::vector<int>()>& missing) {
  const auto until = std::chrono::steady_clock::now() +
                     std::chrono::microseconds(std::llround(waiting.timeout_seconds * 1e6));
  for (bool late = false;;) {
    const std::vector<int> ranks = missing();
    if (ranks.empty()) return;
    fail_if_hopeless(waiting, ranks);
    if (late) {
      std::vector<std::string> names;
      for (const int rank : ranks) names.push_back(fmt::format("rank {}", rank));
      throw CommError(timeout_message(waiting.op, waiting.axis, waiting.timeout_seconds, names));
    }
    if (waiting.timeout_seconds > 0) {
      late = family_.changed.wait_until(lock, until) == std::cv_status::timeout;
    } else {
      family_.changed.wait(lock);
    }
  }
}

}  // namespace jamba
