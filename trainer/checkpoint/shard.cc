#include "trainer/checkpoint/shard.h"

#include "trainer/checkpoint/hash.h"
#include "trainer/checkpoint/posix_file.h"

namespace jamba {

Box slice_box(const StateSlice& slice) {
  JAMBA_CHECK(is_tensor_name(slice.name), "'{}' is no name of a tensor", slice.name);
  JAMBA_CHECK(slice.data.present(), "'{}': no tensor", slice.name);
  const auto dims = slice.data.dims();
  const Box box{slice.offset, {dims.begin(), dims.end()}};
  JAMBA_CHECK(!dims.empty() && lies_in(box, slice.global_shape),
              "'{}': {} at offset [{}] is not within shape [{}]", slice.name, slice.data.describe(),
              fmt::join(slice.offset, ", "), fmt::join(slice.global_shape, ", "));
  return box;
}

std::string slice_hash(std::int64_t step, const SliceRecord& slice, const void* data) {
  const std::string header =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n", step, slice.name, dtype_name(slice.dtype),
                  fmt::join(slice.global_shape, ","), fmt::join(slice.box.offset, ","),
                  fmt::join(slice.box.extents, ","));
  return Hasher()
      .add(header.data(), static_cast<std::int64_t>(header.size()))
      .add(data, slice.box.numel() * dtype_bytes(slice.dtype))
      .hex();
}

ShardWriter::ShardWriter(const std::string& directory, std::int64_t step, int rank)
    : step_(step), name_(shard_file_name(rank)), file_(directory + "/" + name_) {}

void ShardWriter::add(const StateSlice& slice) {
  SliceRecord record;
  record.name = slice.name;
  record.global_shape = slice.global_shape;
  record.box = slice_box(slice);
  record.dtype = slice.data.dtype();
  record.file = name_;
  record.hash = slice_hash(step_, record, slice.data.raw());
  file_.write(dataset_name(record), hdf5_type(record.dtype), record.box.extents, slice.data.raw());
  shard_.slices.push_back(std::move(record));
}

Shard ShardWriter::finish() {
  const std::string path = file_.path();
  file_.close();
  sync_path(path);
  const UniqueFd fd = open_for_reading(path, Links::refuse);
  shard_.files = {{name_, file_size(fd.get(), path), hash_file(fd.get(), path)}};
  return std::move(shard_);
}

}  // namespace jamba
