#pragma once
// HDF5 files of plain arrays: written once, read back under suspicion.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/dtype.h"

namespace jamba {

/// Element types that our files hold, all little-endian.
enum class Hdf5Type : std::uint8_t { u8, u16, u32, i32, i64, f32, bf16 };

std::int64_t hdf5_type_bytes(Hdf5Type type);
std::string_view hdf5_type_name(Hdf5Type type);
/// The type that stores a tensor's dtype, bit for bit.
Hdf5Type hdf5_type(DType dtype);

/// Writes one file: flat list of datasets in the root group, and attributes of the file itself.
/// Names must be non-empty and hold no '/'. Superblock and objects in the 1.10 format, no filters.
/// The file is a whole one only after close(): a writer destroyed without it (an exception, say)
/// removes its file, and a killed process leaves a file that Hdf5Reader refuses.
/// Threads: calls on any two readers or writers may run at the same time; one lock serialises them.
/// Errors: IoError with path, errno text and HDF5's reason. A full disk may show at close() only.
class Hdf5Writer {
 public:
  /// Errors: CannotCreateError if the file exists or its directory is missing or read-only.
  explicit Hdf5Writer(std::string path);
  ~Hdf5Writer();
  Hdf5Writer(Hdf5Writer&&) noexcept;
  Hdf5Writer& operator=(Hdf5Writer&&) noexcept;

  const std::string& path() const;

  /// A contiguous dataset, written at once. `data` holds product(dims) elements; a dim may be 0.
  void write(std::string_view name, Hdf5Type type, std::span<const std::int64_t> dims,
             const void* data);

  /// A growing dataset of one dim, in chunks of `chunk` elements. Append in large pieces.
  void create_growing(std::string_view name, Hdf5Type type, std::int64_t chunk);
  void append(std::string_view name, Hdf5Type type, std::int64_t count, const void* data);

  void set_attribute(std::string_view name, std::string_view value);
  void set_attribute(std::string_view name, std::int64_t value);
  void set_attribute(std::string_view name, double value);
  void set_attribute(std::string_view name, const char* value) {
    set_attribute(name, std::string_view(value));
  }

  /// Hands everything to the operating system and closes; does not fsync. On an error the file is
  /// removed. No other call may follow.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Type and shape of a stored dataset.
struct Hdf5Dataset {
  Hdf5Type type = Hdf5Type::u8;
  std::vector<std::int64_t> dims;  // 1 to 4 of them

  std::int64_t numel() const;
  std::int64_t bytes() const { return numel() * hdf5_type_bytes(type); }
};

/// Reads such a file, and trusts nothing in it: when the constructor returns, every object is a
/// plain dataset (hard link, no external storage, no virtual layout, no filter) of a known type
/// whose elements all lie within the file. So a caller may allocate what datasets() says.
/// Threads: as Hdf5Writer.
/// Errors: NoInputError if the file does not exist; DataError with path and reason if it is not
/// HDF5, truncated, was never closed, or breaks a rule above; IoError if the system fails to read.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(std::string path);
  ~Hdf5Reader();
  Hdf5Reader(Hdf5Reader&&) noexcept;
  Hdf5Reader& operator=(Hdf5Reader&&) noexcept;

  const std::string& path() const;

  /// All datasets by name, in order.
  const std::map<std::string, Hdf5Dataset, std::less<>>& datasets() const;
  bool has(std::string_view name) const { return datasets().contains(name); }
  /// Errors: DataError if there is none of this name.
  const Hdf5Dataset& dataset(std::string_view name) const;
  /// The same; DataError unless it has this type and these dims (-1: any).
  const Hdf5Dataset& expect(std::string_view name, Hdf5Type type,
                            std::span<const std::int64_t> dims) const;

  /// Copies all elements to `out`.
  /// Errors: LogicError unless `out` has exactly the dataset's size.
  void read(std::string_view name, std::span<std::byte> out) const;
  /// Copies rows [begin, begin + count) of dim 0.
  void read_rows(std::string_view name, std::int64_t begin, std::int64_t count,
                 std::span<std::byte> out) const;

  bool has_attribute(std::string_view name) const;
  /// Errors: DataError if there is no attribute of this name and type.
  std::string string_attribute(std::string_view name) const;
  std::int64_t int_attribute(std::string_view name) const;
  double double_attribute(std::string_view name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Version of the HDF5 library, "1.10.8".
std::string hdf5_version();

}  // namespace jamba
