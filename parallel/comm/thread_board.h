#pragma once
// Where ranks that are threads leave what others need. Private to thread_group.

#include <array>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "kernels/core/memory.h"
#include "parallel/comm/call.h"

namespace jamba {

/// What one rank brings to an operation: what it asks for, and a copy of its input.
struct ThreadPost {
  Call call{};
  std::vector<std::int64_t> rows;
  Buffer input;
};

/// What all ranks of a run share: the one lock, and who has failed or left.
struct ThreadFamily {
  explicit ThreadFamily(int size) : left(static_cast<std::size_t>(size)) {}

  /// The rank's body has ended; whoever still waits for it never will see it.
  void leave(int rank, const std::exception_ptr& error, const std::string& message);

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> left;
  std::string failure;  // of the first rank that threw
  std::exception_ptr error;
};

/// How a rank waits: in whose name, and for how long (0: no limit).
struct ThreadWait {
  const Operation& op;
  const std::string& axis;
  double timeout_seconds;
};

/// The meeting place of one group. A collective's ranks post by its number, wait until all have,
/// and read each other's posts; the last to have read clears them. Messages wait here too.
/// Errors: CommError if a rank failed, or one that is waited for has left; after the timeout; if
///   the ranks ask for different things.
class ThreadBoard {
 public:
  ThreadBoard(ThreadFamily& family, std::vector<int> world_ranks)
      : family_(family), world_ranks_(std::move(world_ranks)) {}

  int size() const { return static_cast<int>(world_ranks_.size()); }

  void post(std::int64_t number, int rank, ThreadPost post);
  /// All ranks' posts, once they are there, and all the same call.
  const std::vector<ThreadPost>& meet(std::int64_t number, const ThreadWait&);
  void leave(std::int64_t number);

  /// The board of those who give this color at this meeting: `ranks` of this group.
  std::shared_ptr<ThreadBoard> part(std::int64_t number, int color, const std::vector<int>& ranks);

  void send(int from, ThreadPost post);
  ThreadPost receive(int to, const ThreadWait&);

 private:
  struct Meeting {
    explicit Meeting(std::size_t size) : posts(size), here(size) {}
    std::vector<ThreadPost> posts;
    std::vector<bool> here;
    std::map<int, std::shared_ptr<ThreadBoard>> parts;  // of a split, by color
    std::size_t num_read = 0;
  };
  using Address = std::array<std::int64_t, 3>;  // from, to, number

  Meeting& meeting(std::int64_t number);
  /// Returns, with the lock held, when missing() names no rank any more.
  void wait(std::unique_lock<std::mutex>&, const ThreadWait&,
            const std::function<std::vector<int>()>& missing);
  void fail_if_hopeless(const ThreadWait&, const std::vector<int>& missing) const;

  ThreadFamily& family_;
  const std::vector<int> world_ranks_;
  std::map<std::int64_t, Meeting> meetings_;
  std::map<Address, ThreadPost> messages_;
};

}  // namespace jamba
