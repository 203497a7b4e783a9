#pragma once
// One operation in flight on MPI, as a state machine. Private to this folder.

#include <array>
#include <memory>

#include "parallel/comm/exchange.h"
#include "parallel/comm/mpi_comparison.h"
#include "parallel/comm/mpi_family.h"

namespace jamba {

/// Sends and receives in rounds of one piece a rank, a few rounds at a time, each in its slot: so
/// that pieces travel while others are summed, and what is received into stays small.
class MpiOperation final : public RunningOperation {
 public:
  MpiOperation(const MpiGroup&, Stream&, const Operation&);
  ~MpiOperation() override;
  MpiOperation(const MpiOperation&) = delete;
  MpiOperation& operator=(const MpiOperation&) = delete;

  void finish() override;
  /// Does what can be done now; whether that was anything.
  bool poll();

  const Operation& operation() const { return op_; }
  /// Ranks that keep it from being done.
  std::vector<int> waiting_for();

 private:
  static constexpr int kSlots = 4;
  struct Slot {
    std::int64_t round = 0;
    bool second = false;
    MpiRequests requests{};
  };

  bool done() const { return !comparison_ && num_running_ == 0; }
  void begin();
  void post(Slot&);
  bool advance(Slot&);
  void reduce(const Slot&);
  int slot_of(const Slot& slot) const { return static_cast<int>(&slot - slots_.data()); }
  std::byte* received(const Slot&, int peer) const;

  const MpiGroup& group_;
  Stream& stream_;
  Operation op_;
  Exchange exchange_;
  std::int64_t piece_bytes_ = 0;
  std::int64_t num_rounds_ = 0;
  int num_running_ = 0;  // slots that have rounds to do
  std::array<Slot, kSlots> slots_;
  Buffer scratch_;  // of a reduction: [slots, ranks, piece]
  std::vector<const std::byte*> parts_;
  std::unique_ptr<MpiComparison> comparison_;  // until it is over
};

}  // namespace jamba
