#pragma once
#include "trainer/model/parameters.h"

namespace jamba {

/// The float32 master weights that this rank owns, for initialisation, checkpoints and tests. A
/// bfloat16 unit's are put together while this object lives, and taken apart when it ends. After
/// Access::write the other ranks have still to be told (Parameters::publish). No layer or optimizer
/// may run meanwhile.
/// Memory: of bfloat16 units a copy of the largest, which are put together where they lie; in ZeRO
/// stages optimizer and gradients a copy of what this rank owns.
class Masters {
 public:
  enum class Access { read, write };

  Masters(Parameters&, Access);
  ~Masters();
  Masters(const Masters&) = delete;
  Masters& operator=(const Masters&) = delete;

  Parameters& parameters() const { return parameters_; }
  /// float32 [stretch.count]
  Tensor of(const Parameters::Entry&, const Parameters::Stretch&) const;

 private:
  bool in_place(int unit) const;
  Tensor joined(int unit) const;
  void join(int unit);
  void split(int unit);

  Parameters& parameters_;
  Access access_;
  std::vector<Buffer> copies_;  // of bfloat16 units that are not put together in place
  Buffer largest_;              // on the way to and from their place, for those that are
};

}  // namespace jamba
