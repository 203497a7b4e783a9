#pragma once
// Flat memory for values and gradients of parameters, shared out among data-parallel ranks
// (ZeRO, arXiv:1910.02054): what lies where, when it travels, and when its memory is free again.

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/core/memory.h"
#include "parallel/comm/communicator.h"

namespace jamba {

/// What data-parallel ranks hold a share of instead of a copy; each stage adds to the ones before.
enum class ZeroStage { none, optimizer, gradients, parameters };

/// Whether microbatch gradients are added one after the other, or pairwise.
enum class Accumulation {
  /// Stages none and optimizer: in place, reduced once a step.
  sequential,
  /// Reduced over ranks each microbatch, then added pairwise: ((0+1)+(2+3))+... With microbatch i
  /// of rank r being number i * ranks + r of the step, the sum has the same bits for any power of
  /// two of ranks and microbatches, in every stage.
  tree
};

/// Units come in lengths of this many elements on every rank, so that sums of squares over blocks
/// of it do not depend on how a unit is shared out.
inline constexpr std::int64_t kUnitBlock = 256;

/// Parameters that are brought, reduced and updated together.
struct UnitSpec {
  std::int64_t elements = 0;      // a multiple of kUnitBlock
  DType dtype = DType::f32;       // of the values
  Communicator* group = nullptr;  // ranks with equal values
  /// Units of one pool are used one after the other: stages gradients and parameters give them
  /// memory from the pool, two units at a time, or one where the pool is not `deep`.
  int pool = 0;
  bool deep = true;
  /// Gradients gather from several places of the model: never in pool memory.
  bool keeps_gradient = false;
};

struct ZeroOptions {
  ZeroStage stage = ZeroStage::none;
  Accumulation accumulation = Accumulation::sequential;
  std::int64_t num_micro = 1;  // microbatches a step
  bool training = true;        // false: values only
};

/// Owns values, gradients, and the uint16 rests of bfloat16 values (kernels/optim/weight_halves.h).
/// All ranks of a unit's group call its functions in the same order.
/// A group of one has nothing to share out: its units are those of stage none.
/// Dtypes: values as the unit says; gradients float32.
/// Memory, for a unit of S elements with padding, of E bytes each, on p ranks, of which this one
/// updates O (S in stage none, else S / p):
///   values      E S, in stage parameters E S / p; bfloat16: 2 O of rests.
///   gradients   4 S; in stages gradients and parameters none, unless keeps_gradient.
///   sums        4 S / p, if the unit's gradients have no memory of their own, or in a tree; a
///               tree over m > 1 microbatches has log2(m) of them; over one, in stages none and
///               optimizer, none.
/// and for each pool E S and 4 S of its largest unit, for every slot: two, or one if it is not
/// deep. Determinism: as Communicator's sums.
class ZeroStore {
 public:
  struct Range {
    std::int64_t begin = 0, count = 0;
    std::int64_t end() const { return begin + count; }
  };

  ZeroStore(Stream&, std::vector<UnitSpec>, const ZeroOptions&);
  ~ZeroStore();

  int num_units() const { return static_cast<int>(units_.size()); }
  /// Elements of the unit with padding: an equal share of whole blocks for every rank of its group.
  std::int64_t size(int unit) const;
  /// This rank's equal share.
  Range share(int unit) const;
  /// What this rank updates: its share, or everything where nothing is shared out.
  Range owned(int unit) const;

  // Values.

  /// Returns when the values of the whole unit are here.
  void fetch(int unit);
  /// Starts to bring them, if there is memory for them.
  void prefetch(int unit);
  /// Their memory may be used for another unit.
  void release(int unit);
  /// [size], good between fetch and release.
  Tensor value(int unit) const;
  /// The values and rests (absent for float32) that this rank updates, [owned count].
  Tensor owned_value(int unit);
  Tensor owned_rest(int unit) const;
  /// float32 [owned count] in the very memory of owned values and rests, where they lie so; absent
  /// elsewhere, and for float32 units.
  Tensor joined_memory(int unit) const;
  /// Owned values have changed, and nobody uses the unit: starts to tell the other ranks, which
  /// have them after fetch.
  void publish(int unit);

  // Gradients. A step is num_micro backward passes and one finish_gradients().

  /// Whether this microbatch's gradients (0 .. num_micro - 1) replace what the memory holds; else
  /// they are added to it.
  bool starts_afresh(int unit, std::int64_t micro) const;
  /// Memory for the unit's gradients of this pass, [size]. It holds what starts_afresh says is to
  /// be kept, or else anything, in the padding too.
  Tensor begin_gradient(int unit);
  Tensor full_gradient(int unit) const;
  /// Whether end_gradient of this microbatch makes them travel.
  bool reduces_now(int unit, std::int64_t micro) const;
  /// They are complete. Starts what has to be exchanged now.
  void end_gradient(int unit, std::int64_t micro);
  /// Returns when all sums are there.
  void finish_gradients();
  /// The sum over ranks and microbatches, of what this rank updates: [owned count].
  Tensor owned_gradient(int unit) const;

  /// Device memory that it holds.
  std::int64_t value_bytes() const;
  std::int64_t gradient_bytes() const;

 private:
  struct Unit;
  /// Memory that units take turns in.
  struct Slot {
    Buffer memory;
    Unit* user = nullptr;     // whose content it holds
    std::int64_t filled = 0;  // when, in fills of this store
  };
  using Pool = std::vector<Slot>;

  Unit& at(int unit) const { return *units_[static_cast<std::size_t>(unit)]; }
  void allocate(Unit&);
  void make_pools(std::vector<Pool>&, bool (*uses_pool)(const Unit&), bool gradients);
  bool reduces_each_micro(const Unit&) const;
  Slot* idle_slot(const Unit&);
  Slot& gradient_slot(const Unit&);
  Tensor full_gradient(const Unit&) const;
  void finish_reduction(Unit&);
  bool opens_a_sum(const Unit&) const;
  void accumulate(Unit&);

  Stream& stream_;
  ZeroOptions options_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::vector<Pool> value_pools_, gradient_pools_;
  std::int64_t num_fills_ = 0;
  std::deque<Unit*> travelling_;  // gradients, oldest first
};

}  // namespace jamba
