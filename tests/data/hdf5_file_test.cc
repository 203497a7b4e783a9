#include "data/hdf5/file.h"

#include <array>
#include <thread>

#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;

template <class T>
std::vector<T> read_all(const Hdf5Reader& file, const std::string& name) {
  std::vector<T> values(static_cast<std::size_t>(file.dataset(name).numel()));
  file.read(name, std::as_writable_bytes(std::span<T>(values)));
  return values;
}

void write_example(const std::string& path) {
  Hdf5Writer file(path);
  const std::vector<std::int64_t> dims = {2, 3}, none = {0, 4};
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6.5f};
  const std::vector<std::uint16_t> halves = {0x3f80, 0x4000, 0x4040, 0, 1, 0xffff};
  file.write("floats", Hdf5Type::f32, dims, floats.data());
  file.write("halves", Hdf5Type::bf16, dims, halves.data());
  file.write("empty", Hdf5Type::i64, none, nullptr);
  file.create_growing("grown", Hdf5Type::u16, 4);
  for (std::uint16_t i = 0; i < 9; ++i) file.append("grown", Hdf5Type::u16, 1, &i);
  file.set_attribute("text", "caf\xc3\xa9");
  file.set_attribute("nothing", "");
  file.set_attribute("count", std::int64_t{1} << 40);
  file.set_attribute("ratio", 0.125);
  file.close();
}

TEST(Hdf5File, GivesBackWhatWasWritten) {
  const ScratchDir dir;
  write_example(dir.file("a.h5"));
  const Hdf5Reader file(dir.file("a.h5"));
  EXPECT_EQ(file.datasets().size(), 4u);
  EXPECT_EQ(file.dataset("floats").dims, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(file.dataset("halves").type, Hdf5Type::bf16);
  EXPECT_EQ(read_all<float>(file, "floats"), (std::vector<float>{1, 2, 3, 4, 5, 6.5f}));
  EXPECT_EQ(read_all<std::uint16_t>(file, "halves"),
            (std::vector<std::uint16_t>{0x3f80, 0x4000, 0x4040, 0, 1, 0xffff}));
  EXPECT_TRUE(read_all<std::int64_t>(file, "empty").empty());
  EXPECT_EQ(read_all<std::uint16_t>(file, "grown"),
            (std::vector<std::uint16_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(file.string_attribute("text"), "caf\xc3\xa9");
  EXPECT_EQ(file.string_attribute("nothing"), "");
  EXPECT_EQ(file.int_attribute("count"), std::int64_t{1} << 40);
  EXPECT_EQ(file.double_attribute("ratio"), 0.125);
  EXPECT_FALSE(file.has_attribute("absent"));
}

TEST(Hdf5File, KeepsEveryBitOfEveryType) {
  const ScratchDir dir;
  std::vector<std::byte> bytes(64);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  const std::vector<Hdf5Type> types = {Hdf5Type::u8,  Hdf5Type::u16, Hdf5Type::u32, Hdf5Type::i32,
                                       Hdf5Type::i64, Hdf5Type::f32, Hdf5Type::bf16};
  Hdf5Writer writer(dir.file("a.h5"));
  for (const Hdf5Type type : types) {
    const std::vector<std::int64_t> dims = {64 / hdf5_type_bytes(type)};
    writer.write(hdf5_type_name(type), type, dims, bytes.data());
  }
  writer.close();
  const Hdf5Reader reader(dir.file("a.h5"));
  for (const Hdf5Type type : types) {
    std::vector<std::byte> back(64);
    reader.read(hdf5_type_name(type), back);
    EXPECT_EQ(reader.dataset(hdf5_type_name(type)).type, type);
    EXPECT_EQ(back, bytes) << hdf5_type_name(type);
  }
}

TEST(Hdf5File, ReadsRowsOfTheFirstDim) {
  const ScratchDir dir;
  write_example(dir.file("a.h5"));
  const Hdf5Reader file(dir.file("a.h5"));
  std::vector<float> row(3);
  file.read_rows("floats", 1, 1, std::as_writable_bytes(std::span(row)));
  EXPECT_EQ(row, (std::vector<float>{4, 5, 6.5f}));
  std::vector<std::uint16_t> grown(3);
  file.read_rows("grown", 3, 3, std::as_writable_bytes(std::span(grown)));
  EXPECT_EQ(grown, (std::vector<std::uint16_t>{3, 4, 5}));
  const auto bytes = std::as_writable_bytes(std::span(row));
  EXPECT_THROW(file.read_rows("floats", 2, 1, bytes), LogicError);
  EXPECT_THROW(file.read_rows("floats", -1, 1, bytes), LogicError);
  EXPECT_THROW(file.read_rows("floats", 0, 2, bytes), LogicError);
}

TEST(Hdf5File, TellsWhatItExpectedOfADatasetOrAttribute) {
  const ScratchDir dir;
  write_example(dir.file("a.h5"));
  const Hdf5Reader file(dir.file("a.h5"));
  const std::vector<std::int64_t> two_by_any = {2, -1}, three = {3, 3};
  EXPECT_EQ(file.expect("floats", Hdf5Type::f32, two_by_any).numel(), 6);
  expect_error<DataError>("'floats' is float32[2, 3], expected float32[3, 3]",
                          [&] { file.expect("floats", Hdf5Type::f32, three); });
  expect_error<DataError>("expected int64",
                          [&] { file.expect("floats", Hdf5Type::i64, two_by_any); });
  expect_error<DataError>("has no dataset 'weights'", [&] { file.dataset("weights"); });
  expect_error<DataError>("has no attribute 'absent'", [&] { file.int_attribute("absent"); });
  expect_error<DataError>("'text' is not one integer", [&] { file.int_attribute("text"); });
  expect_error<DataError>("'count' is not one string", [&] { file.string_attribute("count"); });
  expect_error<DataError>("'count' is not one number", [&] { file.double_attribute("count"); });
}

TEST(Hdf5File, DoesNotOverwrite) {
  const ScratchDir dir;
  test::write_bytes(dir.file("a.h5"), "precious");
  expect_error<CannotCreateError>("a.h5: cannot create: File exists (errno 17)",
                                  [&] { Hdf5Writer writer(dir.file("a.h5")); });
  EXPECT_EQ(test::read_bytes(dir.file("a.h5")), "precious");
  expect_error<CannotCreateError>("No such file or directory",
                                  [&] { Hdf5Writer writer(dir.file("missing/a.h5")); });
}

TEST(Hdf5File, DisappearsIfItIsNotClosed) {
  const ScratchDir dir;
  {
    Hdf5Writer writer(dir.file("a.h5"));
    writer.set_attribute("count", std::int64_t{1});
  }
  EXPECT_FALSE(std::filesystem::exists(dir.file("a.h5")));
}

TEST(Hdf5File, RefusesNamesThatAreNoPlainNames) {
  const ScratchDir dir;
  Hdf5Writer writer(dir.file("a.h5"));
  EXPECT_THROW(writer.create_growing("a/b", Hdf5Type::u8, 4), LogicError);
  EXPECT_THROW(writer.set_attribute("", "x"), LogicError);
  EXPECT_THROW(writer.append("never created", Hdf5Type::u8, 1, "x"), LogicError);
}

TEST(Hdf5File, ReportsAFullDiskAndLeavesNothingBehind) {
  const ScratchDir dir;
  const std::vector<float> data(1 << 16);
  const std::vector<std::int64_t> dims = {1 << 16};
  const test::WriteLimit limit(100000);
  expect_error<IoError>("full.h5: cannot write dataset 'w': File too large (errno 27)", [&] {
    Hdf5Writer writer(dir.file("full.h5"));
    writer.write("w", Hdf5Type::f32, dims, data.data());
    writer.close();
  });
  EXPECT_FALSE(std::filesystem::exists(dir.file("full.h5")));
  expect_error<IoError>("grow.h5: cannot ", [&] {
    Hdf5Writer writer(dir.file("grow.h5"));
    writer.create_growing("w", Hdf5Type::f32, 1024);
    for (int i = 0; i < 64; ++i) writer.append("w", Hdf5Type::f32, 1024, data.data());
    writer.close();
  });
  EXPECT_FALSE(std::filesystem::exists(dir.file("grow.h5")));
}

TEST(Hdf5File, MayBeUsedFromSeveralThreads) {
  const ScratchDir dir;
  std::array<std::thread, 4> threads;
  for (int t = 0; t < 4; ++t) {
    threads[static_cast<std::size_t>(t)] = std::thread([&dir, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string path = dir.file(fmt::format("{}-{}.h5", t, i));
        write_example(path);
        const Hdf5Reader file(path);
        EXPECT_EQ(read_all<float>(file, "floats")[5], 6.5f);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace jamba
