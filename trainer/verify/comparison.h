#pragma once
// Computed tensors beside expected ones.

#include <deque>
#include <string>
#include <vector>

#include "kernels/core/memory.h"
#include "trainer/checkpoint/safetensors.h"

namespace jamba {

/// How far one computed tensor is from the expected one.
struct TensorError {
  std::string name;
  std::string kind;  // what stands before the first '.', such as "grad"
  double error = 0;  // |got - want| / |want| (Frobenius); |got| where want is zero
  double tolerance = 0;
  bool ok() const { return error <= tolerance; }  // false for NaN
};

/// Collects what was computed under the names of the expected file.
class Comparison {
 public:
  explicit Comparison(const SafetensorsFile& expected) : expected_(expected) {}

  /// Keeps a copy as float32. Errors: DataError if an expected tensor of this name has another
  /// size.
  void add(const std::string& name, const std::vector<std::int64_t>& shape, const Tensor& values,
           double tolerance);
  void add_scalar(const std::string& name, double value, double tolerance);
  void add_vector(const std::string& name, const std::vector<double>& values, double tolerance);

  /// Compares one element of an expected vector, |got - want| absolute.
  void expect_close(const std::string& name, std::int64_t index, double got, double tolerance);

  /// One entry for each computed tensor that the file expects.
  const std::vector<TensorError>& errors() const { return errors_; }
  /// Writes everything computed.
  void dump(const std::string& path) const;

 private:
  void compare(const std::string& name, const Tensor& got, double tolerance);

  const SafetensorsFile& expected_;
  std::deque<Buffer> storage_;
  std::vector<NamedTensor> computed_;
  std::vector<TensorError> errors_;
};

}  // namespace jamba
