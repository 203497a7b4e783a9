// Files that Hdf5Writer never makes: damaged, of another kind, or built to mislead.

#include <hdf5.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "data/hdf5/file.h"
#include "kernels/core/rng.h"
#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;

std::string example_bytes(const ScratchDir& dir) {
  const std::string path = dir.file("example.h5");
  Hdf5Writer file(path);
  std::vector<std::int32_t> values(3000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i);
  const std::vector<std::int64_t> dims = {3000};
  file.write("flat", Hdf5Type::i32, dims, values.data());
  file.create_growing("grown", Hdf5Type::i32, 500);
  file.append("grown", Hdf5Type::i32, 3000, values.data());
  file.set_attribute("name", "example");
  file.close();
  return test::read_bytes(path);
}

TEST(Hdf5Hostile, TellsAMissingFileFromABadOne) {
  const ScratchDir dir;
  expect_error<NoInputError>("no.h5: cannot open: No such file or directory (errno 2)",
                             [&] { Hdf5Reader file(dir.file("no.h5")); });
  std::filesystem::create_directory(dir.file("folder"));
  expect_error<DataError>("folder: not a regular file",
                          [&] { Hdf5Reader file(dir.file("folder")); });
  test::write_bytes(dir.file("empty"), "");
  expect_error<DataError>("empty: not a complete HDF5 file",
                          [&] { Hdf5Reader file(dir.file("empty")); });
  test::write_bytes(dir.file("text"), std::string(5000, 'x'));
  expect_error<DataError>("text: not a complete HDF5 file",
                          [&] { Hdf5Reader file(dir.file("text")); });
}

TEST(Hdf5Hostile, RefusesEveryTruncation) {
  const ScratchDir dir;
  const std::string whole = example_bytes(dir);
  for (std::size_t cut = 0; cut < whole.size(); cut += 97) {
    test::write_bytes(dir.file("cut"), whole.substr(0, cut));
    expect_error<DataError>("cut: not a complete HDF5 file",
                            [&] { Hdf5Reader file(dir.file("cut")); });
  }
}

TEST(Hdf5Hostile, RefusesAFileWhoseWriterWasKilled) {
  const ScratchDir dir;
  const std::string live = dir.file("live.h5");
  Hdf5Writer writer(live);
  writer.set_attribute("count", std::int64_t{1});
  // This superblock marks a file as open for writing, whatever of it has reached the disk.
  EXPECT_EQ(test::read_bytes(live)[8], 3);
  test::write_bytes(dir.file("killed.h5"), test::read_bytes(live));
  expect_error<DataError>("not a complete HDF5 file",
                          [&] { Hdf5Reader file(dir.file("killed.h5")); });
}

/// Opening and reading may throw our errors, and nothing else may happen.
TEST(Hdf5Hostile, SurvivesRandomDamage) {
  const ScratchDir dir;
  const std::string whole = example_bytes(dir);
  const CounterRng rng(20240607, "damage");
  std::uint64_t draw = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    for (std::int64_t n = 1 + rng.below(draw++, 4); n > 0; --n) {
      const auto place =
          static_cast<std::size_t>(rng.below(draw++, static_cast<std::int64_t>(bytes.size())));
      bytes[place] = static_cast<char>(rng.below(draw++, 256));
    }
    test::write_bytes(dir.file("damaged"), bytes);
    try {
      const Hdf5Reader file(dir.file("damaged"));
      for (const auto& [name, dataset] : file.datasets()) {
        ASSERT_LE(dataset.bytes(), static_cast<std::int64_t>(bytes.size()));
        std::vector<std::byte> out(static_cast<std::size_t>(dataset.bytes()));
        file.read(name, out);
      }
    } catch (const DataError& e) {
      EXPECT_STRNE(e.what(), "");
    } catch (const IoError& e) {
      EXPECT_STRNE(e.what(), "");
    }
  }
}

/// Mounts an empty file system of this size on `path`, for this process only.
bool mount_small_disk(const std::string& path, std::int64_t bytes) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  const std::string size = fmt::format("size={}", bytes);
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", path.c_str(), "tmpfs", 0, size.c_str()) == 0;
}

/// Writes to a disk of this size, then shuts HDF5 down; returns whether writing failed.
bool write_and_shut_down(const std::string& path) {
  const std::vector<float> data(30000);
  const std::vector<std::int64_t> dims = {30000}, few = {3};
  bool failed = false;
  try {
    Hdf5Writer writer(path);
    writer.create_growing("grown", Hdf5Type::f32, 100);
    writer.append("grown", Hdf5Type::f32, 30000, data.data());
    writer.write("flat", Hdf5Type::f32, dims, data.data());
    for (int i = 0; i < 40; ++i) writer.write(std::to_string(i), Hdf5Type::f32, few, data.data());
    writer.close();
  } catch (const IoError& error) {
    failed = std::string_view(error.what()).find("No space left on device (errno 28)") !=
             std::string_view::npos;
  }
  if (failed == std::filesystem::exists(path))
    throw LogicError("the file is neither whole nor gone");
  if (H5close() < 0) throw LogicError("HDF5 cannot shut down");
  return failed;
}

TEST(Hdf5Hostile, StoresBfloat16SoThatOtherProgramsReadIt) {
  const ScratchDir dir;
  const std::vector<std::uint16_t> halves = {0x3f80, 0xc000, 0x3eaa, 0x7f80};
  const std::vector<std::int64_t> dims = {4};
  Hdf5Writer writer(dir.file("a.h5"));
  writer.write("d", Hdf5Type::bf16, dims, halves.data());
  writer.close();
  const hid_t file = H5Fopen(dir.file("a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, "d", H5P_DEFAULT);
  std::vector<float> floats(4);
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, floats.data()), 0);
  EXPECT_EQ(floats, (std::vector<float>{1.0f, -2.0f, 0.33203125f, INFINITY}));
  H5Dclose(dataset);
  H5Fclose(file);
}

/// MPI_Finalize makes HDF5 close whatever it holds. That used to be files that cannot be written to
/// their end, which crashes it.
TEST(Hdf5Hostile, LetsTheLibraryShutDownAfterAFullDisk) {
  const ScratchDir dir;
  constexpr int kNoMount = 2, kFailed = 1, kWritten = 0;
  std::vector<int> seen;
  for (std::int64_t pages = 2; pages < 90; pages += 3) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (!mount_small_disk(dir.file(""), pages * 4096)) ::_exit(kNoMount);
      try {
        ::_exit(write_and_shut_down(dir.file("full.h5")) ? kFailed : kWritten);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ::_exit(3);
      }
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status) << ", " << pages;
    if (WEXITSTATUS(status) == kNoMount) GTEST_SKIP() << "may not mount a small disk";
    seen.push_back(WEXITSTATUS(status));
  }
  EXPECT_EQ(seen.front(), kFailed);
  EXPECT_EQ(seen.back(), kWritten);
  EXPECT_TRUE(std::is_sorted(seen.rbegin(), seen.rend()));
}

TEST(Hdf5Hostile, LetsTheLibraryShutDownAfterAWriterIsAbandonedOnAFullDisk) {
  const ScratchDir dir;
  const pid_t child = ::fork();
  if (child == 0) {
    if (!mount_small_disk(dir.file(""), 64 * 4096)) ::_exit(2);
    {
      Hdf5Writer writer(dir.file("a.h5"));
      writer.set_attribute("text", std::string(30000, 'x'));  // more than a page, in memory still
      test::write_bytes(dir.file("filler"), std::string(100 * 4096, 'x'));
    }
    ::_exit(H5close() >= 0 && !std::filesystem::exists(dir.file("a.h5")) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "may not mount a small disk";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

/// Makes a file through HDF5 itself; `build` gets the open file.
template <class F>
std::string foreign(const ScratchDir& dir, const std::string& name, F&& build) {
  const std::string path = dir.file(name);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  build(file);
  EXPECT_GE(H5Fclose(file), 0);
  return path;
}

/// A dataset of one dim with the given creation properties.
void add_dataset(hid_t file, hid_t type, hsize_t size, hid_t properties) {
  const hid_t space = H5Screate_simple(1, &size, nullptr);
  const hid_t dataset = H5Dcreate2(file, "d", type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  EXPECT_GE(dataset, 0);
  H5Dclose(dataset);
  H5Sclose(space);
}

void expect_refused(const std::string& path, const std::string& why) {
  expect_error<DataError>(why, [&] { Hdf5Reader file(path); });
}

TEST(Hdf5Hostile, RefusesLinksOutOfTheFile) {
  const ScratchDir dir;
  expect_refused(foreign(dir, "external_link",
                         [](hid_t file) {
                           H5Lcreate_external("/etc/passwd", "/x", file, "d", H5P_DEFAULT,
                                              H5P_DEFAULT);
                         }),
                 "'d' is a link to elsewhere");
  expect_refused(
      foreign(dir, "soft_link",
              [](hid_t file) { H5Lcreate_soft("/nowhere", file, "d", H5P_DEFAULT, H5P_DEFAULT); }),
      "'d' is a link to elsewhere");
  expect_refused(foreign(dir, "external_storage",
                         [](hid_t file) {
                           const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
                           H5Pset_external(properties, "/etc/passwd", 0, 100);
                           add_dataset(file, H5T_STD_U8LE, 100, properties);
                           H5Pclose(properties);
                         }),
                 "'d' keeps its data in another file");
  expect_refused(foreign(dir, "virtual",
                         [](hid_t file) {
                           const hsize_t size = 8;
                           const hid_t space = H5Screate_simple(1, &size, nullptr);
                           const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
                           H5Pset_virtual(properties, space, "/tmp/other.h5", "/d", space);
                           add_dataset(file, H5T_STD_U8LE, size, properties);
                           H5Pclose(properties);
                           H5Sclose(space);
                         }),
                 "'d' is stored neither contiguous nor in chunks");
}

TEST(Hdf5Hostile, RefusesObjectsThatAreNoPlainDatasets) {
  const ScratchDir dir;
  expect_refused(foreign(dir, "group",
                         [](hid_t file) {
                           H5Gclose(H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
                         }),
                 "'g' is a group or type");
  for (const hid_t type : {H5T_IEEE_F64LE, H5T_STD_U16BE, H5T_C_S1}) {
    expect_refused(
        foreign(dir, "type", [&](hid_t file) { add_dataset(file, type, 4, H5P_DEFAULT); }),
        "'d' has an element type that jamba never writes");
  }
  expect_refused(foreign(dir, "filtered",
                         [](hid_t file) {
                           const hsize_t chunk = 100;
                           const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
                           H5Pset_chunk(properties, 1, &chunk);
                           H5Pset_fletcher32(properties);
                           add_dataset(file, H5T_STD_U8LE, 100, properties);
                           H5Pclose(properties);
                         }),
                 "'d' is compressed or filtered");
  expect_refused(foreign(dir, "scalar",
                         [](hid_t file) {
                           const hid_t space = H5Screate(H5S_SCALAR);
                           H5Dclose(H5Dcreate2(file, "d", H5T_STD_I32LE, space, H5P_DEFAULT,
                                               H5P_DEFAULT, H5P_DEFAULT));
                           H5Sclose(space);
                         }),
                 "'d' has 0 dims, expected 1 to 4");
}

TEST(Hdf5Hostile, RefusesDimsBeyondTheFileBeforeAnyAllocation) {
  const ScratchDir dir;
  const auto declare = [&](std::vector<hsize_t> dims, bool chunked) {
    return foreign(dir, "absurd", [&](hid_t file) {
      const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
      const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
      const std::vector<hsize_t> chunk(dims.size(), 1);
      if (chunked) H5Pset_chunk(properties, static_cast<int>(dims.size()), chunk.data());
      const hid_t dataset =
          H5Dcreate2(file, "d", H5T_STD_U8LE, space, H5P_DEFAULT, properties, H5P_DEFAULT);
      EXPECT_GE(dataset, 0);
      H5Dclose(dataset);
      H5Pclose(properties);
      H5Sclose(space);
    });
  };
  const std::string why = "more than the file's";
  expect_refused(declare({hsize_t{1} << 50}, false), why);
  expect_refused(declare({hsize_t{1} << 50}, true), why);
  expect_refused(declare({hsize_t{1} << 20, hsize_t{1} << 20, hsize_t{1} << 20}, true), why);
  // Declared, but never written: such elements would read as made-up zeros.
  expect_refused(declare({100}, true), why);
}

TEST(Hdf5Hostile, RefusesAttributesOfOtherShapes) {
  const ScratchDir dir;
  const std::string path = foreign(dir, "attributes", [](hid_t file) {
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    const hid_t scalar = H5Screate(H5S_SCALAR);
    const hsize_t three = 3;
    const hid_t list = H5Screate_simple(1, &three, nullptr);
    H5Aclose(H5Acreate2(file, "variable", text, scalar, H5P_DEFAULT, H5P_DEFAULT));
    H5Aclose(H5Acreate2(file, "list", H5T_STD_I64LE, list, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(list);
    H5Sclose(scalar);
    H5Tclose(text);
  });
  const Hdf5Reader file(path);
  expect_error<DataError>("'variable' is not one string",
                          [&] { file.string_attribute("variable"); });
  expect_error<DataError>("'list' is not one integer", [&] { file.int_attribute("list"); });
}

}  // namespace
}  // namespace jamba
