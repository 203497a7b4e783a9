#pragma once
// Logical tensors from the pieces that ranks have, for comparison with a reference.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "trainer/model/masters.h"

namespace jamba {

/// float32 values of a whole tensor, the same on all ranks.
class LogicalTensor {
 public:
  explicit LogicalTensor(std::vector<std::int64_t> shape);

  const std::vector<std::int64_t>& shape() const { return shape_; }
  Tensor tensor() const { return Tensor(const_cast<float*>(values_.data()), DType::f32, shape_); }
  float* data() { return values_.data(); }
  /// Adds up what the ranks have filled in; each element is to be filled in by one of them.
  void sum(Stream&, Communicator& world);

 private:
  std::vector<std::int64_t> shape_;
  std::vector<float> values_;  // zero where this rank has nothing
};

/// Values of a stretch of an entry: its gradient, its master weight.
using StretchValues = std::function<Tensor(const Parameters::Entry&, const Parameters::Stretch&)>;

/// A parameter's values from all ranks, which call it together. This rank need not hold any.
LogicalTensor gather_parameter(Parameters&, const ParameterSpec&, const StretchValues&);

/// Rows of this rank, float32 or bfloat16 [rows, cols]: row i is row row_of(i) of the whole, and
/// its first column is first_col.
struct RowsPiece {
  std::vector<float> values;
  std::vector<std::int64_t> row;
  std::int64_t cols = 0, first_col = 0;
};
RowsPiece make_piece(Stream&, const Tensor& rows, std::int64_t first_col,
                     const std::function<std::int64_t(std::int64_t)>& row_of);

/// Pieces by name. What a rank has no piece of comes from others.
using Pieces = std::map<std::string, RowsPiece>;
/// Shape: [rows, cols].
LogicalTensor gather_rows(Stream&, Communicator& world, const Pieces&, const std::string& name,
                          std::int64_t rows, std::int64_t cols);

}  // namespace jamba
