#include "tests/support/tensors.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/backend.h"
#include "kernels/core/rng.h"

namespace jamba::test {

namespace {

constexpr std::int64_t kGuardBytes = 4 * kAlignment;
constexpr unsigned char kUnset = 0xFF;  // NaN for floats

std::int64_t count(const std::vector<std::int64_t>& dims) {
  std::int64_t n = 1;
  for (const std::int64_t d : dims) n *= d;
  return n;
}

template <class F>
void for_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bfloat16{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::u16:
      return f(std::uint16_t{});
    case DType::u8:
      return f(std::uint8_t{});
  }
}

void write(const Tensor& t, const void* host) {
  Stream stream = Stream::on(t.device(), 1);
  copy(stream, t, Tensor(const_cast<void*>(host), t.dtype(), t.dims()));
  stream.synchronize();
}

}  // namespace

GuardedTensor::GuardedTensor(DType dtype, const std::vector<std::int64_t>& dims)
    : buffer_(count(dims) * dtype_bytes(dtype) + 2 * kGuardBytes, device()),
      tensor_(static_cast<char*>(buffer_.data()) + kGuardBytes, dtype, dims, device()) {
  if (device().kind == DeviceKind::cpu) {
    std::memset(buffer_.data(), kUnset, static_cast<std::size_t>(buffer_.bytes()));
    return;
  }
  // Guards that are filled, not copied, are bytes that the emulation's checks let no kernel read.
  Stream stream = Stream::on(device(), 1);
  cuda::fill_bytes(stream, buffer_.data(), kUnset, buffer_.bytes());
  stream.synchronize();
  write(tensor_,
        std::vector<unsigned char>(static_cast<std::size_t>(tensor_.bytes()), kUnset).data());
}

GuardedTensor::GuardedTensor(DType dtype, const std::vector<std::int64_t>& dims,
                             const std::vector<double>& values)
    : GuardedTensor(dtype, dims) {
  from_doubles(tensor_, values);
}

bool GuardedTensor::guards_intact() const {
  const Buffer host = to_host(buffer_.tensor(DType::u8, {buffer_.bytes()}));
  const auto* bytes = static_cast<const unsigned char*>(host.data());
  for (std::int64_t i = 0; i < kGuardBytes; ++i) {
    if (bytes[i] != kUnset || bytes[buffer_.bytes() - 1 - i] != kUnset) return false;
  }
  return true;
}

Buffer to_host(const Tensor& t) {
  Buffer host(t.bytes(), {}, Fill::untouched);
  synchronize(t.device());
  Stream stream = Stream::on(t.device(), 1);
  copy(stream, Tensor(host.data(), t.dtype(), t.dims()), t);
  return host;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Buffer x = to_host(a), y = to_host(b);
  return x.bytes() == y.bytes() &&
         (x.bytes() == 0 ||
          std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.bytes())) == 0);
}

std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> out(static_cast<std::size_t>(t.numel()));
  const Buffer host = to_host(t);
  for_dtype(t.dtype(), [&]<class T>(T) {
    const T* p = static_cast<const T*>(host.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        out[i] = static_cast<float>(p[i]);
      } else {
        out[i] = static_cast<double>(p[i]);
      }
    }
  });
  return out;
}

void from_doubles(const Tensor& t, const std::vector<double>& values) {
  JAMBA_CHECK(t.numel() == static_cast<std::int64_t>(values.size()), "{} values for {}",
              values.size(), t.describe());
  const Buffer host(t.bytes(), {}, Fill::untouched);
  for_dtype(t.dtype(), [&]<class T>(T) {
    T* p = static_cast<T*>(host.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        p[i] = bfloat16(static_cast<float>(values[i]));
      } else {
        p[i] = static_cast<T>(values[i]);
      }
    }
  });
  write(t, host.data());
}

std::vector<double> normal_values(std::int64_t n, std::uint64_t seed, const std::string& name,
                                  double scale) {
  const CounterRng rng(seed, name);
  std::vector<double> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = scale * rng.normal(i);
  return out;
}

std::vector<double> integer_values(std::int64_t n, std::uint64_t seed, const std::string& name,
                                   std::int64_t low, std::int64_t high) {
  const CounterRng rng(seed, name);
  std::vector<double> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<double>(low + rng.below(i, high - low));
  }
  return out;
}

double worst_error(const std::vector<double>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  double squares = 0;
  for (const double w : want) squares += w * w;
  const double rms = want.empty() ? 0 : std::sqrt(squares / static_cast<double>(want.size()));
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;
    const double error = std::abs(got[i] - want[i]) / (rms + std::abs(want[i]));
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

}  // namespace jamba::test
