#pragma once
// What the reader and the writer share of HDF5's C API. Included by data/hdf5/*.cc only.

#include <hdf5.h>

#include <mutex>
#include <string>

#include "data/hdf5/file.h"
#include "kernels/core/handle.h"

namespace jamba::hdf5 {

void close_file(hid_t id);
void close_dataset(hid_t id);
void close_space(hid_t id);
void close_type(hid_t id);
void close_attribute(hid_t id);
void close_properties(hid_t id);

using File = UniqueHandle<hid_t, close_file, hid_t{-1}>;
using Dataset = UniqueHandle<hid_t, close_dataset, hid_t{-1}>;
using Space = UniqueHandle<hid_t, close_space, hid_t{-1}>;
using Type = UniqueHandle<hid_t, close_type, hid_t{-1}>;
using Attribute = UniqueHandle<hid_t, close_attribute, hid_t{-1}>;
using Properties = UniqueHandle<hid_t, close_properties, hid_t{-1}>;

/// Holds the one lock over HDF5, which keeps global state and is built without thread safety.
/// On the first one: no printing, no filter plugins from the environment, no work at exit (after a
/// full disk the library's exit handler crashes).
class LibraryLock {
 public:
  LibraryLock();

 private:
  std::scoped_lock<std::mutex> lock_;
};

/// What HDF5 says about the call that just failed.
struct Failure {
  std::string reason;        // the innermost one
  bool from_system = false;  // a system call failed, not the file's content
};
Failure last_failure();

/// Throws IoError if the system failed, DataError "path: what: reason" if the content is at fault.
[[noreturn]] void throw_read(const std::string& path, const std::string& what);

/// The stored form of a type; the caller owns it.
Type make_type(Hdf5Type type);
/// Access by plain serial I/O in the 1.10 format, without file locks.
Properties make_file_access();

}  // namespace jamba::hdf5
