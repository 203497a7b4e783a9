#pragma once
#include "trainer/model/parameters.h"

namespace jamba {

/// The float32 master weights, for reading and writing: initialisation, checkpoints, tests. Weights
/// in halves are put together in their own memory while this object lives, and taken apart when it
/// ends. No layer or optimizer may run meanwhile: their values are not there.
/// Memory: a copy of the largest weight in halves.
class Masters {
 public:
  Masters(Stream&, const Parameters&);
  ~Masters();
  Masters(const Masters&) = delete;
  Masters& operator=(const Masters&) = delete;

  const Parameters& parameters() const { return parameters_; }
  /// All masters as parameters lie in the flat buffers, gaps included.
  Tensor flat() const;
  /// Errors: LogicError if no parameter has this name.
  Tensor operator[](const std::string& name) const { return of(parameters_.entry(name)); }
  Tensor of(const Parameters::Entry&) const;

 private:
  Stream& stream_;
  const Parameters& parameters_;
  Buffer copy_;
};

}  // namespace jamba
