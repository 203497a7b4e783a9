#include "trainer/checkpoint/safetensors.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace jamba {

namespace {

static_assert(std::endian::native == std::endian::little, "the format's data is little-endian");

constexpr std::int64_t kMaxHeaderBytes = 100'000'000;
constexpr std::int64_t kLengthBytes = 8;

std::string read_header(int fd, const std::string& path, std::int64_t size) {
  if (size < kLengthBytes) {
    throw DataError(fmt::format("{}: {} bytes, too short for safetensors", path, size));
  }
  std::uint64_t length = 0;
  read_at(fd, path, 0, &length, kLengthBytes);
  if (length > static_cast<std::uint64_t>(kMaxHeaderBytes) ||
      length > static_cast<std::uint64_t>(size - kLengthBytes)) {
    throw DataError(fmt::format("{}: header of {} bytes, expected at most {} in a file of {}", path,
                                length, kMaxHeaderBytes, size));
  }
  std::string header(length, '\0');
  read_at(fd, path, kLengthBytes, header.data(), static_cast<std::int64_t>(length));
  // The format asks for it: white space in front could hide the header's start.
  if (header.empty() || header[0] != '{') throw DataError(path + ": the header is no JSON object");
  return header;
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Reads 16-bit floats through a small buffer and widens them.
template <class Widen>
void read_widened(int fd, const std::string& path, std::int64_t offset, float* out,
                  std::int64_t count, Widen widen) {
  constexpr std::int64_t kChunk = 1 << 16;
  std::vector<std::uint16_t> chunk(static_cast<std::size_t>(std::min(kChunk, count)));
  for (std::int64_t at = 0; at < count; at += kChunk) {
    const std::int64_t n = std::min(kChunk, count - at);
    read_at(fd, path, offset + 2 * at, chunk.data(), 2 * n);
    std::transform(chunk.begin(), chunk.begin() + n, out + at, widen);
  }
}

std::string_view format_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
    case DType::u16:
      return "U16";
    case DType::u8:
      return "U8";
  }
  throw LogicError("unknown dtype");
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), fd_(open_for_reading(path, Links::follow)) {
  const std::int64_t size = file_size(fd_.get(), path_);
  const std::string header = read_header(fd_.get(), path_, size);
  data_begin_ = kLengthBytes + static_cast<std::int64_t>(header.size());
  entries_ = parse_safetensors_header(header, size - data_begin_, path_);
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

void SafetensorsFile::read(const SafetensorsEntry& entry, const Tensor& out) const {
  const std::int64_t count = entry.numel();
  if (!out.present() || out.numel() != count) {
    throw DataError(fmt::format("{}: tensor '{}' is {}[{}], expected {}", path_, entry.name,
                                entry.dtype, fmt::join(entry.shape, ", "), out.describe()));
  }
  const std::int64_t offset = data_begin_ + entry.begin;
  if (entry.dtype == format_dtype(out.dtype())) {
    read_at(fd_.get(), path_, offset, out.raw(), entry.bytes);
  } else if (out.dtype() == DType::f32 && entry.dtype == "BF16") {
    read_widened(fd_.get(), path_, offset, out.ptr<float>(), count, bfloat16_to_float);
  } else if (out.dtype() == DType::f32 && entry.dtype == "F16") {
    read_widened(fd_.get(), path_, offset, out.ptr<float>(), count, half_to_float);
  } else {
    throw DataError(fmt::format("{}: tensor '{}' holds {}, which cannot be read as {}", path_,
                                entry.name, entry.dtype, dtype_name(out.dtype())));
  }
}

namespace {

/// Length, JSON and padding of a file with these tensors, in this order.
std::string make_header(std::span<const NamedTensor> tensors) {
  const auto quoted = [](const std::string& name) {
    for (const char c : name) {
      JAMBA_CHECK(c >= ' ' && c != '"' && c != '\\' && c < 127, "tensor name '{}'", name);
    }
    return '"' + name + '"';
  };
  std::string json = R"({"__metadata__":{"format":"pt"})";
  std::map<std::string_view, int> seen;
  std::int64_t begin = 0;
  for (const auto& [name, tensor] : tensors) {
    JAMBA_CHECK(tensor.present(), "tensor '{}' is absent", name);
    JAMBA_CHECK(++seen[name] == 1 && name != "__metadata__", "tensor '{}' stands twice", name);
    const std::int64_t end = begin + tensor.bytes();
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(name),
                        format_dtype(tensor.dtype()), fmt::join(tensor.dims(), ","), begin, end);
    begin = end;
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  JAMBA_CHECK(static_cast<std::int64_t>(json.size()) <= kMaxHeaderBytes, "{} tensors",
              tensors.size());
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + json;
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors) {
  std::vector<NamedTensor> ordered(tensors.begin(), tensors.end());
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return dtype_bytes(a.tensor.dtype()) > dtype_bytes(b.tensor.dtype());
  });
  const std::string header = make_header(ordered);
  const std::string temporary = path + ".tmp";
  ::unlink(temporary.c_str());  // of a run that was killed
  try {
    const UniqueFd fd = create_file(temporary);
    write_all(fd.get(), temporary, header.data(), static_cast<std::int64_t>(header.size()));
    for (const NamedTensor& t : ordered) {
      write_all(fd.get(), temporary, t.tensor.raw(), t.tensor.bytes());
    }
    sync_fd(fd.get(), temporary);
    rename_path(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const std::size_t slash = path.find_last_of('/');
  sync_path(slash == std::string::npos ? "." : path.substr(0, slash + 1));
}

}  // namespace jamba
