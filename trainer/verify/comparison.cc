#include "trainer/verify/comparison.h"

#include <cmath>

namespace jamba {

namespace {

void copy_as_float(const Tensor& to, const Tensor& from) {
  visit_float(from.dtype(), [&]<class T>(T) {
    for (std::int64_t i = 0; i < from.numel(); ++i) {
      to.ptr<float>()[i] = static_cast<float>(from.ptr<T>()[i]);
    }
  });
}

double relative_error(const float* got, const float* want, std::int64_t n) {
  double difference = 0, size = 0, got_size = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    difference += (g - w) * (g - w);
    size += w * w;
    got_size += g * g;
  }
  return size > 0 ? std::sqrt(difference / size) : std::sqrt(got_size);
}

}  // namespace

void Comparison::add(const std::string& name, const std::vector<std::int64_t>& shape,
                     const Tensor& values, double tolerance) {
  storage_.emplace_back(values.numel() * dtype_bytes(DType::f32));
  const Tensor copy(storage_.back().data(), DType::f32, std::span<const std::int64_t>(shape));
  JAMBA_CHECK(copy.numel() == values.numel(), "{}: {} as {}", name, values.describe(),
              copy.describe());
  copy_as_float(copy, values);
  computed_.push_back({name, copy});
  compare(name, copy, tolerance);
}

void Comparison::add_scalar(const std::string& name, double value, double tolerance) {
  float narrow = static_cast<float>(value);
  add(name, {}, Tensor(&narrow, DType::f32, {}), tolerance);
}

void Comparison::add_vector(const std::string& name, const std::vector<double>& values,
                            double tolerance) {
  std::vector<float> narrow(values.begin(), values.end());
  const auto n = static_cast<std::int64_t>(narrow.size());
  add(name, {n}, Tensor(narrow.data(), DType::f32, {n}), tolerance);
}

void Comparison::compare(const std::string& name, const Tensor& got, double tolerance) {
  const SafetensorsEntry* entry = expected_.find(name);
  if (entry == nullptr) return;
  if (entry->numel() != got.numel()) {
    throw DataError(fmt::format("{}: '{}' has shape [{}], the model computes {}", expected_.path(),
                                name, fmt::join(entry->shape, ", "), got.describe()));
  }
  const Buffer buffer(got.bytes());
  const Tensor want(buffer.data(), DType::f32, got.dims());
  expected_.read(*entry, want);
  errors_.push_back({name, name.substr(0, name.find('.')),
                     relative_error(got.ptr<float>(), want.ptr<float>(), got.numel()), tolerance});
}

void Comparison::expect_close(const std::string& name, std::int64_t index, double got,
                              double tolerance) {
  const SafetensorsEntry* entry = expected_.find(name);
  if (entry == nullptr || index >= entry->numel()) {
    throw DataError(fmt::format("{}: no element {} of '{}'", expected_.path(), index, name));
  }
  std::vector<float> want(static_cast<std::size_t>(entry->numel()));
  expected_.read(*entry, Tensor(want.data(), DType::f32, {entry->numel()}));
  errors_.push_back({fmt::format("{}[{}]", name, index), name,
                     std::abs(got - static_cast<double>(want[static_cast<std::size_t>(index)])),
                     tolerance});
}

void Comparison::dump(const std::string& path) const { write_safetensors(path, computed_); }

}  // namespace jamba
