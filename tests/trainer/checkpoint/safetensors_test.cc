#include "trainer/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "tests/trainer/checkpoint/checkpoint_support.h"

namespace jamba::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A file with this header, its true length in front, and data_bytes bytes behind.
std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\1');
}

class SafetensorsHostile : public ::testing::Test {
 protected:
  std::string error_of(const std::string& bytes) {
    const std::string path = directory_ / "x.safetensors";
    write_bytes(path, bytes);
    const std::string message = message_of<DataError>([&] { SafetensorsFile file(path); });
    EXPECT_THAT(message, HasSubstr(path));
    return message;
  }
  std::string error_of_tensor(const std::string& tensor, std::size_t data_bytes) {
    return error_of(file_of("{\"a\":" + tensor + "}", data_bytes));
  }

  const TemporaryDirectory directory_;
};

TEST_F(SafetensorsHostile, Lengths) {
  const auto with_length = [](std::uint64_t length, const std::string& rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + rest;
  };
  EXPECT_THAT(error_of(""), HasSubstr("too short"));
  EXPECT_THAT(error_of("1234567"), HasSubstr("too short"));
  EXPECT_THAT(error_of(with_length(std::uint64_t{1} << 63, "{}")), HasSubstr("header of"));
  EXPECT_THAT(error_of(with_length(~std::uint64_t{0}, "{}")), HasSubstr("header of"));
  EXPECT_THAT(error_of(with_length(3, "{}")), HasSubstr("header of 3 bytes"));
  EXPECT_THAT(error_of(with_length(100'000'001, std::string(100'000'001, ' '))),
              HasSubstr("header of 100000001 bytes"));
  EXPECT_THAT(error_of(with_length(0, "")), HasSubstr("no JSON object"));
}

TEST_F(SafetensorsHostile, Json) {
  EXPECT_THAT(error_of(file_of("[]")), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(file_of(" {}")), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(file_of("{")), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(file_of("{}{}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(file_of("{\"\xff\":1}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(file_of("{\"a\":" + std::string(100'000, '[') + "}")),
              HasSubstr("nested deeper"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(error_of(file_of(objects)), HasSubstr("nested deeper"));
  const std::string tensor = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(error_of(file_of("{\"a\":" + tensor + ",\"a\":" + tensor + "}", 1)),
              HasSubstr("'a' stands twice"));
  EXPECT_THAT(error_of(file_of("{\"__metadata__\":{\"a\":1}}")), HasSubstr("expected a string"));
}

TEST_F(SafetensorsHostile, Tensors) {
  EXPECT_THAT(error_of_tensor("7", 4), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error_of_tensor(R"({"dtype":"F32","shape":[1]})", 4),
              AllOf(HasSubstr("tensor 'a'"), HasSubstr("'data_offsets': missing")));
  EXPECT_THAT(error_of_tensor(R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})", 4),
              HasSubstr("'F33' is no dtype"));
  EXPECT_THAT(error_of_tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})", 4),
              HasSubstr("unknown key"));
  for (const char* shape : {"[-1]", "[1.0]", "[\"1\"]", "[9223372036854775808]", "[[1]]"}) {
    EXPECT_THAT(error_of_tensor(
                    fmt::format(R"({{"dtype":"F32","shape":{},"data_offsets":[0,4]}})", shape), 4),
                HasSubstr("expected integers of at least 0"))
        << shape;
  }
  // 2^62 * 4 is 0 in 64 bits; so is 2^32 * 2^32.
  for (const char* shape : {"[4611686018427387904]", "[4294967296,4294967296]",
                            "[3,6148914691236517205,4]", "[0,4611686018427387904,8]"}) {
    EXPECT_THAT(error_of_tensor(
                    fmt::format(R"({{"dtype":"F32","shape":{},"data_offsets":[0,0]}})", shape), 0),
                HasSubstr("too large"))
        << shape;
  }
  for (const char* offsets : {"[0]", "[0,4,8]", "[4,0]", "[0,5]", "[0,9223372036854775807]"}) {
    EXPECT_THAT(error_of_tensor(
                    fmt::format(R"({{"dtype":"F32","shape":[1],"data_offsets":{}}})", offsets), 4),
                HasSubstr("expected 0 <= begin <= end <= 4"))
        << offsets;
  }
  EXPECT_THAT(error_of_tensor(R"({"dtype":"BF16","shape":[1],"data_offsets":[0,4]})", 4),
              HasSubstr("span 4 bytes, but BF16[1] needs 2"));
}

TEST_F(SafetensorsHostile, Layout) {
  const auto two = [&](int begin_a, int end_a, int begin_b, int end_b, std::size_t data) {
    const auto tensor = [](int begin, int end) {
      return fmt::format(R"({{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", end - begin,
                         begin, end);
    };
    return file_of(
        fmt::format(R"({{"a":{},"b":{}}})", tensor(begin_a, end_a), tensor(begin_b, end_b)), data);
  };
  EXPECT_THAT(error_of(two(0, 4, 3, 8, 8)), HasSubstr("overlap"));
  EXPECT_THAT(error_of(two(0, 4, 0, 8, 8)), HasSubstr("overlap"));
  EXPECT_THAT(error_of(two(0, 4, 5, 8, 8)), HasSubstr("hole"));
  EXPECT_THAT(error_of(two(1, 4, 4, 8, 8)), HasSubstr("hole"));
  EXPECT_THAT(error_of(two(0, 4, 4, 8, 9)), HasSubstr("fill 8 of 9"));
  write_bytes(directory_ / "ok", two(4, 8, 0, 4, 8));
  EXPECT_NO_THROW(SafetensorsFile(directory_ / "ok"));
  write_bytes(directory_ / "ok", two(0, 8, 8, 8, 8));
  EXPECT_NO_THROW(SafetensorsFile(directory_ / "ok"));
}

TEST(Safetensors, OtherFilesAreNotRead) {
  const TemporaryDirectory directory;
  EXPECT_THROW(SafetensorsFile(directory / "missing"), NoInputError);
  EXPECT_THROW(SafetensorsFile{directory.path()}, DataError);
}

TEST(Safetensors, WritesWhatItReads) {
  const TemporaryDirectory directory;
  std::vector<float> f = {1.5f, -0.0f, std::nanf(""), 3e38f, 1e-42f, 7};
  std::vector<bfloat16> b = {bfloat16(1.5f), bfloat16(-2.0f), bfloat16(3.0f)};
  std::vector<std::int64_t> i = {-1, std::int64_t{1} << 62};
  float scalar = 4;
  const std::vector<NamedTensor> tensors = {{"b", Tensor(b.data(), DType::bf16, {3})},
                                            {"f", Tensor(f.data(), DType::f32, {2, 1, 3})},
                                            {"i", Tensor(i.data(), DType::i64, {2})},
                                            {"s", Tensor(&scalar, DType::f32, {})},
                                            {"e", Tensor(f.data(), DType::f32, {0, 4})}};
  const std::string path = directory / "x.safetensors";
  write_bytes(path + ".tmp", "of a killed run");
  write_safetensors(path, tensors);
  EXPECT_THAT(names_in(directory.path()), ElementsAre("x.safetensors"));

  const SafetensorsFile file(path);
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (const NamedTensor& want : tensors) {
    const SafetensorsEntry* entry = file.find(want.name);
    ASSERT_NE(entry, nullptr) << want.name;
    EXPECT_EQ(entry->begin % dtype_bytes(want.tensor.dtype()), 0) << want.name;
    const auto dims = want.tensor.dims();
    EXPECT_EQ(entry->shape, std::vector<std::int64_t>(dims.begin(), dims.end())) << want.name;
    std::string got(static_cast<std::size_t>(want.tensor.bytes()), '\xee');
    file.read(*entry, Tensor(got.data(), want.tensor.dtype(), dims));
    EXPECT_EQ(got, std::string(static_cast<const char*>(want.tensor.raw()), got.size()));
  }
  EXPECT_EQ(file.find("x"), nullptr);
}

TEST(Safetensors, PadsItsHeaderWithSpaces) {
  const TemporaryDirectory directory;
  float value = 1;
  for (std::size_t length = 1; length <= 8; ++length) {
    const NamedTensor tensor{std::string(length, 'n'), Tensor(&value, DType::f32, {1})};
    write_safetensors(directory / "x", {&tensor, 1});
    const std::string bytes = read_bytes(directory / "x");
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    EXPECT_EQ(header % 8, 0);
    EXPECT_EQ(bytes.size(), 8 + header + 4);
    EXPECT_THAT(bytes.substr(8, header), StartsWith(R"({"__metadata__":{"format":"pt"},)"));
    const std::size_t end = bytes.rfind('}', 7 + header) + 1;
    EXPECT_LT(8 + header - end, 8);
    EXPECT_EQ(bytes.substr(end, 8 + header - end), std::string(8 + header - end, ' '));
  }
}

TEST(Safetensors, ReadsHalvesAsFloats) {
  const TemporaryDirectory directory;
  const std::string path = directory / "x.safetensors";
  const std::vector<std::uint16_t> halves = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff,
                                             0x0400, 0x8000, 0x7c00, 0xfc00, 0x7e01};
  std::string bytes = file_of(R"({"h":{"dtype":"F16","shape":[10],"data_offsets":[0,20]},)"
                              R"("b":{"dtype":"BF16","shape":[10],"data_offsets":[20,40]}})");
  for (int copy = 0; copy < 2; ++copy) {
    bytes.append(reinterpret_cast<const char*>(halves.data()), 20);
  }
  write_bytes(path, bytes);
  const SafetensorsFile file(path);
  std::vector<float> out(10);
  const Tensor tensor(out.data(), DType::f32, {2, 5});
  file.read(*file.find("h"), tensor);
  const std::vector<float> want = {1,        -2,    65504,    0x1p-24f, -1023 * 0x1p-24f,
                                   0x1p-14f, -0.0f, INFINITY, -INFINITY};
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(out[i]), std::bit_cast<std::uint32_t>(want[i])) << i;
  }
  EXPECT_TRUE(std::isnan(out[9]));
  file.read(*file.find("b"), tensor);
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(out[i]), std::uint32_t{halves[i]} << 16) << i;
  }
}

TEST(Safetensors, RefusesOtherTypesAndCounts) {
  const TemporaryDirectory directory;
  std::vector<std::int64_t> i = {1, 2};
  std::vector<float> f(3);
  write_safetensors(directory / "x",
                    std::vector<NamedTensor>{{"i", Tensor(i.data(), DType::i64, {2})}});
  const SafetensorsFile file(directory / "x");
  EXPECT_THAT(
      message_of<DataError>([&] { file.read(*file.find("i"), Tensor(f.data(), DType::f32, {2})); }),
      AllOf(HasSubstr("'i'"), HasSubstr("I64"), HasSubstr("float32")));
  EXPECT_THAT(
      message_of<DataError>([&] { file.read(*file.find("i"), Tensor(f.data(), DType::f32, {3})); }),
      AllOf(HasSubstr("I64[2]"), HasSubstr("float32[3]")));
}

TEST(Safetensors, AFailedWriteLeavesNothing) {
  const TemporaryDirectory directory;
  EXPECT_THROW(write_safetensors(directory / "none/x", {}), CannotCreateError);
  std::filesystem::create_directory(directory / "x");
  EXPECT_THROW(write_safetensors(directory / "x", {}), IoError);
  EXPECT_THAT(names_in(directory.path()), ElementsAre("x"));
  float value = 1;
  const NamedTensor t{"a", Tensor(&value, DType::f32, {1})};
  EXPECT_THROW(write_safetensors(directory / "y", std::vector<NamedTensor>{t, t}), LogicError);
}

class ShardedSafetensors : public ::testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(directory_ / "one.safetensors", std::vector<NamedTensor>{{"a", scalar(0)}});
    write_safetensors(directory_ / "two.safetensors",
                      std::vector<NamedTensor>{{"b", scalar(1)}, {"c", scalar(2)}});
    write_index(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  }
  Tensor scalar(std::size_t i) { return Tensor(&values_[i], DType::f32, {1}); }
  void write_index(const std::string& map) {
    write_bytes(directory_ / "model.safetensors.index.json",
                R"({"metadata":{"total_size":12},"weight_map":)" + map + "}");
  }
  std::string error() {
    return message_of<DataError>([&] { SafetensorsDirectory files(directory_.path()); });
  }

  const TemporaryDirectory directory_;
  float values_[3] = {5, 6, 7};
};

TEST_F(ShardedSafetensors, ReadsByName) {
  const SafetensorsDirectory files(directory_.path());
  EXPECT_EQ(files.tensors().size(), 3);
  float out = 0;
  files.read("c", Tensor(&out, DType::f32, {1}));
  EXPECT_EQ(out, 7);
  EXPECT_THROW(files.read("d", Tensor(&out, DType::f32, {1})), DataError);
}

TEST_F(ShardedSafetensors, IndexMustAgreeWithShards) {
  write_index(R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"})");
  EXPECT_THAT(error(), AllOf(HasSubstr("'b'"), HasSubstr("does not hold this tensor")));
  write_index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("'c'"));
  write_index(R"({"a":"one.safetensors","z":"two.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("'z'"));
  write_safetensors(directory_ / "one.safetensors",
                    std::vector<NamedTensor>{{"a", scalar(0)}, {"b", scalar(1)}});
  write_index(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("'b' stands in both"));
  write_index(R"({"a":"none.safetensors"})");
  EXPECT_THROW(SafetensorsDirectory(directory_.path()), NoInputError);
}

TEST_F(ShardedSafetensors, IndexCannotLeaveTheDirectory) {
  for (const std::string name : {"../one.safetensors", "/etc/passwd", "a/../../b", "..", ".",
                                 "one\\u0000.safetensors", ""}) {
    write_index(fmt::format(R"({{"a":"{}"}})", name));
    EXPECT_THAT(error(), HasSubstr("is not the name of a file beside it")) << name;
  }
  write_index(fmt::format(R"({{"a":"{}"}})", std::string(5000, 'x')));
  EXPECT_THAT(error(), HasSubstr("is not the name of a file beside it"));
}

}  // namespace
}  // namespace jamba::test
