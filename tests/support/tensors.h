#pragma once
// Tensors for tests: filled from doubles, with guard bytes around them.

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/memory.h"
#include "tests/support/device.h"

namespace jamba::test {

/// The tensor's bytes in memory of the host, once the device has finished.
Buffer to_host(const Tensor&);
/// Reads any dtype as doubles; writes doubles, rounding to the tensor's dtype.
std::vector<double> to_doubles(const Tensor&);
void from_doubles(const Tensor&, const std::vector<double>&);
/// Whether two tensors of one device hold the same bytes.
bool same_bits(const Tensor&, const Tensor&);

/// An owned tensor on device(), between two guard zones. All bytes start as 0xFF (NaN for floats),
/// so that an output that is never written shows, and a read of a guard zone; *_checked programs
/// stop there. Reading it waits for the device.
class GuardedTensor {
 public:
  GuardedTensor(DType dtype, const std::vector<std::int64_t>& dims);
  GuardedTensor(DType dtype, const std::vector<std::int64_t>& dims,
                const std::vector<double>& values);

  Tensor tensor() const { return tensor_; }
  std::vector<double> values() const { return to_doubles(tensor_); }
  bool guards_intact() const;

 private:
  Buffer buffer_;
  Tensor tensor_;
};

/// n standard normal values times `scale`, a function of (seed, name).
std::vector<double> normal_values(std::int64_t n, std::uint64_t seed, const std::string& name,
                                  double scale = 1.0);
/// n integers in [low, high), as doubles.
std::vector<double> integer_values(std::int64_t n, std::uint64_t seed, const std::string& name,
                                   std::int64_t low, std::int64_t high);

/// The largest |got - want| / (rms(want) + |want|); infinity where got is NaN and want is not.
double worst_error(const std::vector<double>& got, const std::vector<double>& want);

}  // namespace jamba::test
