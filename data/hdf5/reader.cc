#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "data/hdf5/library.h"
#include "kernels/core/errors.h"

namespace jamba {

std::int64_t Hdf5Dataset::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t dim : dims) n *= dim;
  return n;
}

struct Hdf5Reader::Impl {
  std::string path;
  std::int64_t file_bytes = 0;
  hdf5::File file;
  std::map<std::string, Hdf5Dataset, std::less<>> datasets;
  std::map<std::string, hdf5::Dataset, std::less<>> handles;

  ~Impl() {
    const hdf5::LibraryLock lock;
    handles.clear();
    file.reset();
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& why) const {
    throw DataError(fmt::format("{}: '{}' {}", path, name, why));
  }

  void index_link(const std::string& name, const H5L_info_t& link);
  Hdf5Type stored_type(const std::string& name, hid_t dataset) const;
  void check_storage(const std::string& name, hid_t dataset) const;
  std::vector<std::int64_t> checked_dims(const std::string& name, hid_t dataset,
                                         Hdf5Type type) const;
  hdf5::Attribute open_attribute(std::string_view name, H5T_class_t type_class,
                                 const char* kind) const;
};

namespace {

/// The size of a readable regular file.
std::int64_t probe(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string message =
        fmt::format("{}: cannot open: {} (errno {})", path, std::strerror(errno), errno);
    if (errno == ENOENT || errno == ENOTDIR) throw NoInputError(message);
    throw IoError(message);
  }
  struct stat info {};
  const bool known = ::fstat(fd, &info) == 0;
  ::close(fd);
  if (!known || !S_ISREG(info.st_mode)) {
    throw DataError(fmt::format("{}: not a regular file, expected an HDF5 file", path));
  }
  return info.st_size;
}

struct Link {
  std::string name;
  H5L_info_t info;
};

/// Runs inside HDF5's C code, so nothing may be thrown out of it.
herr_t collect_link(hid_t /*group*/, const char* name, const H5L_info_t* info,
                    void* data) noexcept {
  static_cast<std::vector<Link>*>(data)->push_back({name, *info});
  return 0;
}

}  // namespace

Hdf5Type Hdf5Reader::Impl::stored_type(const std::string& name, hid_t dataset) const {
  const hdf5::Type stored(H5Dget_type(dataset));
  for (const Hdf5Type type : {Hdf5Type::u8, Hdf5Type::u16, Hdf5Type::u32, Hdf5Type::i32,
                              Hdf5Type::i64, Hdf5Type::f32, Hdf5Type::bf16}) {
    if (H5Tequal(stored.get(), hdf5::make_type(type).get()) > 0) return type;
  }
  refuse(name, "has an element type that jamba never writes");
}

void Hdf5Reader::Impl::check_storage(const std::string& name, hid_t dataset) const {
  const hdf5::Properties properties(H5Dget_create_plist(dataset));
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED) {
    refuse(name, "is stored neither contiguous nor in chunks (a virtual or compact dataset)");
  }
  if (H5Pget_external_count(properties.get()) != 0) {
    refuse(name, "keeps its data in another file (external storage)");
  }
  if (H5Pget_nfilters(properties.get()) != 0) refuse(name, "is compressed or filtered");
}

std::vector<std::int64_t> Hdf5Reader::Impl::checked_dims(const std::string& name, hid_t dataset,
                                                         Hdf5Type type) const {
  const hdf5::Space space(H5Dget_space(dataset));
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE || rank < 1 || rank > 4) {
    refuse(name, fmt::format("has {} dims, expected 1 to 4", rank));
  }
  std::array<hsize_t, 4> extent{};
  H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  std::vector<std::int64_t> dims;
  // An empty dataset may still not carry a dim that overflows when dims are multiplied.
  hsize_t bytes = static_cast<hsize_t>(hdf5_type_bytes(type));
  bool fits = true;
  for (int i = 0; i < rank; ++i) {
    const hsize_t dim = extent[static_cast<std::size_t>(i)];
    fits = fits && dim < (hsize_t{1} << 62) && !__builtin_mul_overflow(bytes, dim, &bytes);
    dims.push_back(static_cast<std::int64_t>(dim));
  }
  // Storage that was never allocated reads as zeros, so the declared size must be there in full.
  if (!fits || bytes > static_cast<hsize_t>(file_bytes) || bytes > H5Dget_storage_size(dataset)) {
    refuse(name, fmt::format("declares dims [{}] of {}, more than the file's {} bytes hold",
                             fmt::join(extent.data(), extent.data() + rank, ", "),
                             hdf5_type_name(type), file_bytes));
  }
  return dims;
}

void Hdf5Reader::Impl::index_link(const std::string& name, const H5L_info_t& link) {
  if (link.type != H5L_TYPE_HARD) refuse(name, "is a link to elsewhere, expected a dataset");
  H5O_info_t object{};
  if (H5Oget_info_by_name2(file.get(), name.c_str(), &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
    hdf5::throw_read(path, fmt::format("cannot read object '{}'", name));
  }
  if (object.type != H5O_TYPE_DATASET) refuse(name, "is a group or type, expected a dataset");
  hdf5::Dataset dataset(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT));
  if (!dataset) hdf5::throw_read(path, fmt::format("cannot open dataset '{}'", name));
  const Hdf5Type type = stored_type(name, dataset.get());
  check_storage(name, dataset.get());
  datasets.emplace(name, Hdf5Dataset{type, checked_dims(name, dataset.get(), type)});
  handles.emplace(name, std::move(dataset));
}

Hdf5Reader::Hdf5Reader(std::string path) : impl_(std::make_unique<Impl>()) {
  impl_->path = std::move(path);
  impl_->file_bytes = probe(impl_->path);
  const hdf5::LibraryLock lock;
  const hdf5::Properties access = hdf5::make_file_access();
  impl_->file = hdf5::File(H5Fopen(impl_->path.c_str(), H5F_ACC_RDONLY, access.get()));
  if (!impl_->file) {
    hdf5::throw_read(impl_->path,
                     "not a complete HDF5 file (of another kind, truncated, or its "
                     "writer was stopped)");
  }
  std::vector<Link> links;
  hsize_t position = 0;
  if (H5Literate(impl_->file.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &position, collect_link,
                 &links) < 0) {
    hdf5::throw_read(impl_->path, "cannot list the root group");
  }
  for (const Link& link : links) impl_->index_link(link.name, link.info);
}

Hdf5Reader::~Hdf5Reader() = default;
Hdf5Reader::Hdf5Reader(Hdf5Reader&&) noexcept = default;
Hdf5Reader& Hdf5Reader::operator=(Hdf5Reader&&) noexcept = default;

const std::string& Hdf5Reader::path() const { return impl_->path; }

const std::map<std::string, Hdf5Dataset, std::less<>>& Hdf5Reader::datasets() const {
  return impl_->datasets;
}

const Hdf5Dataset& Hdf5Reader::dataset(std::string_view name) const {
  const auto it = impl_->datasets.find(name);
  if (it == impl_->datasets.end()) {
    throw DataError(fmt::format("{}: has no dataset '{}'", impl_->path, name));
  }
  return it->second;
}

const Hdf5Dataset& Hdf5Reader::expect(std::string_view name, Hdf5Type type,
                                      std::span<const std::int64_t> dims) const {
  const Hdf5Dataset& found = dataset(name);
  bool same = found.type == type && found.dims.size() == dims.size();
  for (std::size_t i = 0; same && i < dims.size(); ++i) {
    same = dims[i] == -1 || dims[i] == found.dims[i];
  }
  if (!same) {
    impl_->refuse(
        std::string(name),
        fmt::format("is {}[{}], expected {}[{}]", hdf5_type_name(found.type),
                    fmt::join(found.dims, ", "), hdf5_type_name(type), fmt::join(dims, ", ")));
  }
  return found;
}

void Hdf5Reader::read(std::string_view name, std::span<std::byte> out) const {
  read_rows(name, 0, dataset(name).dims[0], out);
}

void Hdf5Reader::read_rows(std::string_view name, std::int64_t begin, std::int64_t count,
                           std::span<std::byte> out) const {
  const Hdf5Dataset& info = dataset(name);
  JAMBA_CHECK(begin >= 0 && count >= 0 && begin <= info.dims[0] - count,
              "rows [{}, {} + {}) of '{}' with {} rows", begin, begin, count, name, info.dims[0]);
  std::array<hsize_t, 4> start{}, extent{};
  std::int64_t bytes = hdf5_type_bytes(info.type);
  for (std::size_t i = 0; i < info.dims.size(); ++i) {
    extent[i] = static_cast<hsize_t>(i == 0 ? count : info.dims[i]);
    bytes *= static_cast<std::int64_t>(extent[i]);
  }
  start[0] = static_cast<hsize_t>(begin);
  JAMBA_CHECK(static_cast<std::int64_t>(out.size()) == bytes, "'{}': buffer of {} bytes for {}",
              name, out.size(), bytes);
  if (bytes == 0) return;
  const hdf5::LibraryLock lock;
  const hid_t dataset_id = impl_->handles.find(name)->second.get();
  const hdf5::Type type = hdf5::make_type(info.type);
  const hdf5::Space place(H5Dget_space(dataset_id));
  const hdf5::Space memory(
      H5Screate_simple(static_cast<int>(info.dims.size()), extent.data(), nullptr));
  if (H5Sselect_hyperslab(place.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(),
                          nullptr) < 0 ||
      H5Dread(dataset_id, type.get(), memory.get(), place.get(), H5P_DEFAULT, out.data()) < 0) {
    hdf5::throw_read(impl_->path, fmt::format("cannot read dataset '{}'", name));
  }
}

hdf5::Attribute Hdf5Reader::Impl::open_attribute(std::string_view name, H5T_class_t type_class,
                                                 const char* kind) const {
  const std::string label(name);
  if (H5Aexists(file.get(), label.c_str()) <= 0) {
    throw DataError(fmt::format("{}: has no attribute '{}'", path, name));
  }
  hdf5::Attribute attribute(H5Aopen(file.get(), label.c_str(), H5P_DEFAULT));
  if (!attribute) hdf5::throw_read(path, fmt::format("cannot open attribute '{}'", name));
  const hdf5::Space space(H5Aget_space(attribute.get()));
  const hdf5::Type type(H5Aget_type(attribute.get()));
  // 1 MiB is far above any attribute of ours and far below any trouble.
  if (H5Sget_simple_extent_type(space.get()) != H5S_SCALAR ||
      H5Tget_class(type.get()) != type_class || H5Tis_variable_str(type.get()) > 0 ||
      H5Tget_size(type.get()) > (std::size_t{1} << 20)) {
    throw DataError(fmt::format("{}: attribute '{}' is not one {}", path, name, kind));
  }
  return attribute;
}

bool Hdf5Reader::has_attribute(std::string_view name) const {
  const hdf5::LibraryLock lock;
  return H5Aexists(impl_->file.get(), std::string(name).c_str()) > 0;
}

std::string Hdf5Reader::string_attribute(std::string_view name) const {
  const hdf5::LibraryLock lock;
  const hdf5::Attribute attribute = impl_->open_attribute(name, H5T_STRING, "string");
  const hdf5::Type type(H5Aget_type(attribute.get()));
  std::string text(H5Tget_size(type.get()), '\0');
  if (H5Aread(attribute.get(), type.get(), text.data()) < 0) {
    hdf5::throw_read(impl_->path, fmt::format("cannot read attribute '{}'", name));
  }
  text.resize(::strnlen(text.data(), text.size()));
  return text;
}

std::int64_t Hdf5Reader::int_attribute(std::string_view name) const {
  const hdf5::LibraryLock lock;
  const hdf5::Attribute attribute = impl_->open_attribute(name, H5T_INTEGER, "integer");
  std::int64_t value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0) {
    hdf5::throw_read(impl_->path, fmt::format("cannot read attribute '{}'", name));
  }
  return value;
}

double Hdf5Reader::double_attribute(std::string_view name) const {
  const hdf5::LibraryLock lock;
  const hdf5::Attribute attribute = impl_->open_attribute(name, H5T_FLOAT, "number");
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0) {
    hdf5::throw_read(impl_->path, fmt::format("cannot read attribute '{}'", name));
  }
  return value;
}

}  // namespace jamba
