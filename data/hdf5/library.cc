#include "data/hdf5/library.h"

#include <string_view>

#include "kernels/core/errors.h"

namespace jamba {

std::int64_t hdf5_type_bytes(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return 1;
    case Hdf5Type::u16:
    case Hdf5Type::bf16:
      return 2;
    case Hdf5Type::u32:
    case Hdf5Type::i32:
    case Hdf5Type::f32:
      return 4;
    case Hdf5Type::i64:
      return 8;
  }
  JAMBA_CHECK(false, "unknown HDF5 type {}", static_cast<int>(type));
}

std::string_view hdf5_type_name(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return "uint8";
    case Hdf5Type::u16:
      return "uint16";
    case Hdf5Type::u32:
      return "uint32";
    case Hdf5Type::i32:
      return "int32";
    case Hdf5Type::i64:
      return "int64";
    case Hdf5Type::f32:
      return "float32";
    case Hdf5Type::bf16:
      return "bfloat16";
  }
  JAMBA_CHECK(false, "unknown HDF5 type {}", static_cast<int>(type));
}

Hdf5Type hdf5_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Hdf5Type::f32;
    case DType::bf16:
      return Hdf5Type::bf16;
    case DType::i32:
      return Hdf5Type::i32;
    case DType::i64:
      return Hdf5Type::i64;
    case DType::u16:
      return Hdf5Type::u16;
    case DType::u8:
      return Hdf5Type::u8;
  }
  JAMBA_CHECK(false, "unknown dtype {}", static_cast<int>(dtype));
}

namespace hdf5 {

void close_file(hid_t id) { H5Fclose(id); }
void close_dataset(hid_t id) { H5Dclose(id); }
void close_space(hid_t id) { H5Sclose(id); }
void close_type(hid_t id) { H5Tclose(id); }
void close_attribute(hid_t id) { H5Aclose(id); }
void close_properties(hid_t id) { H5Pclose(id); }

namespace {

/// The library below is one per process, so its lock must be too.
std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// The system's own words out of a report like "..., errno = 28, error message = 'No space left on
/// device', buf = 0x55a9, ...", or nothing.
std::string system_reason(std::string_view description) {
  constexpr std::string_view kNumber = "errno = ", kText = "error message = '";
  const std::size_t number = description.find(kNumber), text = description.find(kText);
  if (number == std::string_view::npos || text == std::string_view::npos) return "";
  const std::string_view from_number = description.substr(number + kNumber.size());
  const std::string_view from_text = description.substr(text + kText.size());
  return fmt::format("{} (errno {})", from_text.substr(0, from_text.find('\'')),
                     from_number.substr(0, from_number.find(',')));
}

herr_t collect(unsigned /*depth*/, const H5E_error2_t* error, void* data) {
  auto& failure = *static_cast<Failure*>(data);
  const std::string_view description = error->desc != nullptr ? error->desc : "";
  const std::string system = system_reason(description);
  if (!system.empty()) {
    failure = {.reason = system, .from_system = true};
  } else if (failure.reason.empty()) {
    failure.reason = description;
  }
  return 0;
}

}  // namespace

LibraryLock::LibraryLock() : lock_(library_mutex()) {
  static const bool without_exit_handler = H5dont_atexit() >= 0;
  static_cast<void>(without_exit_handler);
  // Every time: the library forgets both when MPI_Finalize shuts it down.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);
}

Failure last_failure() {
  Failure failure;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &failure);
  if (failure.reason.empty()) failure.reason = "no reason given by HDF5";
  return failure;
}

void throw_read(const std::string& path, const std::string& what) {
  const Failure failure = last_failure();
  const std::string message = fmt::format("{}: {}: {}", path, what, failure.reason);
  if (failure.from_system) throw IoError(message);
  throw DataError(message);
}

Type make_type(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return Type(H5Tcopy(H5T_STD_U8LE));
    case Hdf5Type::u16:
      return Type(H5Tcopy(H5T_STD_U16LE));
    case Hdf5Type::u32:
      return Type(H5Tcopy(H5T_STD_U32LE));
    case Hdf5Type::i32:
      return Type(H5Tcopy(H5T_STD_I32LE));
    case Hdf5Type::i64:
      return Type(H5Tcopy(H5T_STD_I64LE));
    case Hdf5Type::f32:
      return Type(H5Tcopy(H5T_IEEE_F32LE));
    case Hdf5Type::bf16: {
      // The upper half of a float32: sign at bit 15, 8 exponent bits, 7 mantissa bits.
      Type half(H5Tcopy(H5T_IEEE_F32LE));
      const bool ok = H5Tset_fields(half.get(), 15, 7, 8, 0, 7) >= 0 &&
                      H5Tset_precision(half.get(), 16) >= 0 && H5Tset_size(half.get(), 2) >= 0;
      JAMBA_CHECK(ok, "HDF5 refuses a bfloat16 type: {}", last_failure().reason);
      return half;
    }
  }
  JAMBA_CHECK(false, "unknown HDF5 type {}", static_cast<int>(type));
}

Properties make_file_access() {
  Properties access(H5Pcreate(H5P_FILE_ACCESS));
  const bool ok = H5Pset_fapl_sec2(access.get()) >= 0 &&
                  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
                  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG) >= 0 &&
                  H5Pset_file_locking(access.get(), /*use_file_locking=*/false, true) >= 0;
  JAMBA_CHECK(ok, "HDF5 refuses file access properties: {}", last_failure().reason);
  return access;
}

}  // namespace hdf5
std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  if (H5get_libversion(&major, &minor, &release) < 0)
    throw IoError("HDF5 does not tell its version");
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace jamba
