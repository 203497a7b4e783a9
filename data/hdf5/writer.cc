#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "data/hdf5/library.h"
#include "kernels/core/errors.h"

namespace jamba {

struct Hdf5Writer::Impl {
  struct Growing {
    hdf5::Dataset dataset;
    Hdf5Type type;
    hsize_t size = 0;
  };

  std::string path;
  hdf5::File file;
  std::map<std::string, Growing, std::less<>> growing;
  bool ours = false;  // there is a file to remove, unless it gets finished
  bool finished = false;

  ~Impl() {
    const hdf5::LibraryLock lock;
    if (file) divert();
    growing.clear();
    file.reset();
    if (ours && !finished) ::unlink(path.c_str());
  }

  /// From now on HDF5's writes go to memory that is thrown away. A file whose last writes fail
  /// cannot be closed, and a file that is not closed crashes HDF5 when MPI shuts it down.
  void divert() const {
    void* handle = nullptr;
    if (H5Fget_vfd_handle(file.get(), H5P_DEFAULT, &handle) < 0 || handle == nullptr) return;
    const int memory = ::memfd_create("jamba-discarded", MFD_CLOEXEC);
    if (memory < 0) return;
    ::dup3(memory, *static_cast<int*>(handle), O_CLOEXEC);
    ::close(memory);
  }

  /// Gives the file up after a failed call. The caller's own open object must be closed between
  /// divert() and the file: closing it later crashes HDF5.
  template <class Handle = hdf5::Dataset>
  [[noreturn]] void fail(const std::string& what, Handle* open = nullptr) {
    const std::string reason = hdf5::last_failure().reason;
    if (file) divert();
    if (open != nullptr) open->reset();
    growing.clear();
    file.reset();
    throw IoError(fmt::format("{}: {}: {}", path, what, reason));
  }

  void check_name(std::string_view name) const {
    JAMBA_CHECK(static_cast<bool>(file), "{} is closed", path);
    JAMBA_CHECK(!name.empty() && name.find('/') == std::string_view::npos,
                "'{}' cannot name a dataset or attribute of {}", name, path);
  }

  hdf5::Dataset create(const std::string& name, Hdf5Type type, hid_t space, hid_t properties) {
    const hdf5::Type stored = hdf5::make_type(type);
    hdf5::Dataset dataset(H5Dcreate2(file.get(), name.c_str(), stored.get(), space, H5P_DEFAULT,
                                     properties, H5P_DEFAULT));
    if (!dataset) fail(fmt::format("cannot create dataset '{}'", name));
    return dataset;
  }

  void write_attribute(const std::string& name, hid_t type, const void* value) {
    const hdf5::Space scalar(H5Screate(H5S_SCALAR));
    hdf5::Attribute attribute(
        H5Acreate2(file.get(), name.c_str(), type, scalar.get(), H5P_DEFAULT, H5P_DEFAULT));
    if (!attribute || H5Awrite(attribute.get(), type, value) < 0) {
      fail(fmt::format("cannot write attribute '{}'", name), &attribute);
    }
  }
};

namespace {

/// Claims the path by the system's own exclusive create, whose errno is exact.
void create_exclusively(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) {
    throw CannotCreateError(
        fmt::format("{}: cannot create: {} (errno {})", path, std::strerror(errno), errno));
  }
  ::close(fd);
}

/// Fill values are never read, so they are never written.
hdf5::Properties dataset_properties() {
  hdf5::Properties properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  return properties;
}

}  // namespace

Hdf5Writer::Hdf5Writer(std::string path) : impl_(std::make_unique<Impl>()) {
  const hdf5::LibraryLock lock;
  impl_->path = std::move(path);
  create_exclusively(impl_->path);
  impl_->ours = true;
  const hdf5::Properties access = hdf5::make_file_access();
  impl_->file =
      hdf5::File(H5Fcreate(impl_->path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
  if (!impl_->file) {
    throw CannotCreateError(
        fmt::format("{}: cannot create: {}", impl_->path, hdf5::last_failure().reason));
  }
}

Hdf5Writer::~Hdf5Writer() = default;
Hdf5Writer::Hdf5Writer(Hdf5Writer&&) noexcept = default;
Hdf5Writer& Hdf5Writer::operator=(Hdf5Writer&&) noexcept = default;

const std::string& Hdf5Writer::path() const { return impl_->path; }

void Hdf5Writer::write(std::string_view name, Hdf5Type type, std::span<const std::int64_t> dims,
                       const void* data) {
  impl_->check_name(name);
  JAMBA_CHECK(!dims.empty() && dims.size() <= 4, "'{}' has {} dims, expected 1 to 4", name,
              dims.size());
  std::vector<hsize_t> extent;
  bool empty = false;
  for (const std::int64_t dim : dims) {
    JAMBA_CHECK(dim >= 0, "'{}' has a negative dim: {}", name, dim);
    extent.push_back(static_cast<hsize_t>(dim));
    empty = empty || dim == 0;
  }
  const hdf5::LibraryLock lock;
  const hdf5::Space space(
      H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr));
  const hdf5::Properties properties = dataset_properties();
  const std::string label(name);
  hdf5::Dataset dataset = impl_->create(label, type, space.get(), properties.get());
  const hdf5::Type stored = hdf5::make_type(type);
  if (!empty && H5Dwrite(dataset.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    impl_->fail(fmt::format("cannot write dataset '{}'", name), &dataset);
  }
  if (H5Dflush(dataset.get()) < 0) {
    impl_->fail(fmt::format("cannot finish dataset '{}'", name), &dataset);
  }
}

void Hdf5Writer::create_growing(std::string_view name, Hdf5Type type, std::int64_t chunk) {
  impl_->check_name(name);
  JAMBA_CHECK(chunk > 0, "'{}' has a chunk of {} elements", name, chunk);
  const hdf5::LibraryLock lock;
  const hsize_t size = 0, limit = H5S_UNLIMITED, chunk_size = static_cast<hsize_t>(chunk);
  const hdf5::Space space(H5Screate_simple(1, &size, &limit));
  const hdf5::Properties properties = dataset_properties();
  H5Pset_chunk(properties.get(), 1, &chunk_size);
  std::string label(name);
  hdf5::Dataset dataset = impl_->create(label, type, space.get(), properties.get());
  impl_->growing.emplace(std::move(label), Impl::Growing{std::move(dataset), type, 0});
}

void Hdf5Writer::append(std::string_view name, Hdf5Type type, std::int64_t count,
                        const void* data) {
  impl_->check_name(name);
  const auto it = impl_->growing.find(name);
  JAMBA_CHECK(it != impl_->growing.end(), "{} has no growing dataset '{}'", impl_->path, name);
  Impl::Growing& target = it->second;
  JAMBA_CHECK(type == target.type && count >= 0, "'{}' holds {}, got {} elements of {}", name,
              hdf5_type_name(target.type), count, hdf5_type_name(type));
  if (count == 0) return;
  const hdf5::LibraryLock lock;
  const hsize_t begin = target.size, added = static_cast<hsize_t>(count);
  const hsize_t end = begin + added;
  const auto check = [&](bool ok) {
    if (!ok) impl_->fail(fmt::format("cannot extend dataset '{}'", name));
  };
  const hid_t dataset = target.dataset.get();
  check(H5Dset_extent(dataset, &end) >= 0);
  const hdf5::Space memory(H5Screate_simple(1, &added, nullptr));
  const hdf5::Space place(H5Dget_space(dataset));
  const hdf5::Type stored = hdf5::make_type(type);
  check(H5Sselect_hyperslab(place.get(), H5S_SELECT_SET, &begin, nullptr, &added, nullptr) >= 0);
  check(H5Dwrite(dataset, stored.get(), memory.get(), place.get(), H5P_DEFAULT, data) >= 0);
  target.size = end;
}

void Hdf5Writer::set_attribute(std::string_view name, std::string_view value) {
  impl_->check_name(name);
  const hdf5::LibraryLock lock;
  const std::string text = value.empty() ? std::string(1, '\0') : std::string(value);
  const hdf5::Type type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), text.size());
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  impl_->write_attribute(std::string(name), type.get(), text.data());
}

void Hdf5Writer::set_attribute(std::string_view name, std::int64_t value) {
  impl_->check_name(name);
  const hdf5::LibraryLock lock;
  impl_->write_attribute(std::string(name), H5T_STD_I64LE, &value);
}

void Hdf5Writer::set_attribute(std::string_view name, double value) {
  impl_->check_name(name);
  const hdf5::LibraryLock lock;
  impl_->write_attribute(std::string(name), H5T_IEEE_F64LE, &value);
}

void Hdf5Writer::close() {
  JAMBA_CHECK(static_cast<bool>(impl_->file), "{} is closed already", impl_->path);
  const hdf5::LibraryLock lock;
  // Flushing apart from closing: a failed flush can still be dealt with, a failed close cannot.
  for (auto& [name, target] : impl_->growing) {
    if (H5Dflush(target.dataset.get()) < 0) {
      impl_->fail(fmt::format("cannot finish dataset '{}'", name));
    }
  }
  if (H5Fflush(impl_->file.get(), H5F_SCOPE_LOCAL) < 0) impl_->fail("cannot finish the file");
  impl_->growing.clear();
  if (H5Fclose(impl_->file.release()) < 0) impl_->fail("cannot finish the file");
  impl_->finished = true;
}

}  // namespace jamba
