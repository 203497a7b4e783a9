// Every kind of damage to a checkpoint is found and named.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/trainer/checkpoint/checkpoint_support.h"
#include "trainer/checkpoint/hash.h"
#include "trainer/checkpoint/shard.h"

namespace jamba::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CheckpointDamage : public ::testing::Test {
 protected:
  void SetUp() override {
    save_state(root_.path(), 10, 1, 2);
    save_state(root_.path(), 20, 2, 2);
    path_ = root_ / "step-00000020";
  }

  std::string file(const std::string& name) const { return path_ + "/" + name; }

  /// The error of reading all of the checkpoint.
  std::string error() const {
    return message_of<CheckpointError>([&] {
      State state(logical_tensors(), 0, 1, 0);
      load_checkpoint(path_, state.slices());
      read_tokenizer_model(path_, read_manifest(path_));
    });
  }

  /// Rewrites the manifest with a valid hash, as a hostile hand would.
  void forge_manifest(const std::string& from, const std::string& to) const {
    std::string text = read_bytes(file("MANIFEST.json"));
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    const std::size_t begin = text.find('\n') + 1, end = text.rfind(",\n\"xxh3_128\":\"");
    const std::string hash =
        hash_bytes(text.data() + begin, static_cast<std::int64_t>(end - begin));
    text.replace(end + 14, kHashDigits, hash);
    write_bytes(file("MANIFEST.json"), text);
  }

  const TemporaryDirectory root_;
  std::string path_;
};

TEST_F(CheckpointDamage, AnyFlippedBitIsFound) {
  std::mt19937_64 random(2024);
  for (const std::string& name : names_in(path_)) {
    const std::string sound = read_bytes(file(name));
    for (int i = 0; i < 250; ++i) {
      std::string damaged = sound;
      const std::size_t at = random() % damaged.size();
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
      write_bytes(file(name), damaged);
      ASSERT_THAT(error(), HasSubstr(file(name) + ": damaged")) << "byte " << at;
    }
    write_bytes(file(name), sound);
  }
  expect_loads(path_, 2);
}

TEST_F(CheckpointDamage, NamesTheTensorsOfADamagedFile) {
  std::string damaged = read_bytes(file("rank-00001.h5"));
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  write_bytes(file("rank-00001.h5"), damaged);
  EXPECT_THAT(error(), AllOf(HasSubstr("rank-00001.h5: damaged"),
                             HasSubstr("adam_m/model.embed_tokens.weight"), HasSubstr("3 more")));
  // A rank that needs only the other file is not stopped by it.
  State state({{"counters/steps", {3}, DType::i64}}, 0, 2, 0);
  load_checkpoint(path_, state.slices());
  EXPECT_TRUE(state.holds(2));
}

TEST_F(CheckpointDamage, TruncationIsFound) {
  for (const std::string& name : names_in(path_)) {
    const std::string sound = read_bytes(file(name));
    for (const std::size_t size : {std::size_t{0}, sound.size() / 2, sound.size() - 1}) {
      write_bytes(file(name), sound.substr(0, size));
      EXPECT_THAT(error(), HasSubstr(file(name))) << size;
    }
    write_bytes(file(name), sound + " ");
    EXPECT_THAT(error(), HasSubstr(file(name)));
    write_bytes(file(name), sound);
  }
  expect_loads(path_, 2);
}

TEST_F(CheckpointDamage, AMissingFileIsFound) {
  for (const std::string& name : names_in(path_)) {
    fs::rename(file(name), root_ / "away");
    EXPECT_THAT(error(), AllOf(HasSubstr(file(name)), HasSubstr("No such file"))) << name;
    fs::rename(root_ / "away", file(name));
  }
  expect_loads(path_, 2);
}

TEST_F(CheckpointDamage, SwappedFilesAreFound) {
  fs::rename(file("rank-00000.h5"), root_ / "away");
  fs::rename(file("rank-00001.h5"), file("rank-00000.h5"));
  fs::rename(root_ / "away", file("rank-00001.h5"));
  EXPECT_THAT(error(), HasSubstr("rank-00000.h5"));
}

TEST_F(CheckpointDamage, PartsOfAnotherStepAreFound) {
  const auto overwrite = fs::copy_options::overwrite_existing;
  fs::copy_file(root_ / "step-00000010/rank-00000.h5", file("rank-00000.h5"), overwrite);
  EXPECT_THAT(error(), HasSubstr("rank-00000.h5: damaged"));
  fs::copy_file(root_ / "step-00000010/MANIFEST.json", file("MANIFEST.json"), overwrite);
  EXPECT_THAT(error(), HasSubstr("is of step 10, but its directory is named for 20"));
}

TEST_F(CheckpointDamage, SymbolicLinksAreRefused) {
  for (const std::string& name : names_in(path_)) {
    fs::rename(file(name), root_ / "away");
    fs::create_symlink(root_ / "away", file(name));
    EXPECT_THAT(error(), AllOf(HasSubstr(file(name)), HasSubstr("symbolic link"))) << name;
    fs::remove(file(name));
    fs::rename(root_ / "away", file(name));
  }
  fs::remove(file("rank-00000.h5"));
  fs::create_directory(file("rank-00000.h5"));
  EXPECT_THAT(error(), HasSubstr("is not a regular file"));
}

TEST_F(CheckpointDamage, ForgedFileNamesAreRefused) {
  const std::string sound = read_bytes(file("MANIFEST.json"));
  for (const std::string name : {"../step-00000010/rank-00000.h5", "/etc/passwd", "rank-a.h5",
                                 "rank-.h5", "MANIFEST.json", ".", ""}) {
    forge_manifest(R"("name":"rank-00000.h5")", fmt::format(R"("name":"{}")", name));
    EXPECT_THAT(error(), HasSubstr("is no name of a checkpoint's file")) << name;
    write_bytes(file("MANIFEST.json"), sound);
  }
  forge_manifest(R"("name":"rank-00000.h5")", R"("name":"rank-00001.h5")");
  EXPECT_THAT(error(), HasSubstr("stands twice"));
}

TEST_F(CheckpointDamage, ForgedSlicesAreRefused) {
  const std::string sound = read_bytes(file("MANIFEST.json"));
  const std::string slice =
      R"({"name":"counters/steps","dtype":"int64","global_shape":[3],"offset":[0],"extents":[2])";
  const auto forge = [&](const std::string& from, const std::string& to) {
    std::string forged = slice;
    forged.replace(forged.find(from), from.size(), to);
    forge_manifest(slice, forged);
    const std::string message = error();
    write_bytes(file("MANIFEST.json"), sound);
    return message;
  };
  EXPECT_THAT(forge("counters/steps", "../steps"), HasSubstr("not a name of a tensor"));
  EXPECT_THAT(forge("counters/steps", "a//b"), HasSubstr("not a name of a tensor"));
  EXPECT_THAT(forge("int64", "int65"), HasSubstr("unknown dtype"));
  EXPECT_THAT(forge("int64", "int32"), HasSubstr("slices disagree"));
  EXPECT_THAT(forge("[3]", "[4]"), HasSubstr("slices disagree"));
  EXPECT_THAT(forge("[3]", "[4611686018427387904]"), HasSubstr("too large"));
  EXPECT_THAT(forge("[3]", "[4,4,4,4,4]"), HasSubstr("has 5 dims"));
  EXPECT_THAT(forge("[3]", "[-3]"), HasSubstr("expected integers of at least 0"));
  EXPECT_THAT(forge("[0]", "[2]"), HasSubstr("is not within shape [3]"));
  EXPECT_THAT(forge("[0]", "[9223372036854775807]"), HasSubstr("is not within shape [3]"));
  EXPECT_THAT(forge("[2]", "[1]"), HasSubstr("2 of 3 elements"));
  EXPECT_THAT(forge("[2]", "[3]"), HasSubstr("overlap"));
  EXPECT_THAT(forge("\"offset\"", "\"name\":1,\"offset\""), HasSubstr("stands twice"));
  EXPECT_THAT(forge("\"offset\"", "\"more\":1,\"offset\""), HasSubstr("unknown key"));
  expect_loads(path_, 2);
}

TEST(SliceHash, BindsTheBytesToWhatTheyAre) {
  const std::vector<char> data(96);
  const SliceRecord slice{"weight/a", {6, 4}, {{0, 0}, {3, 4}}, DType::f32, "rank-00000.h5", ""};
  std::vector<SliceRecord> others(5, slice);
  others[0].name = "weight/b";
  others[1].global_shape = {7, 4};
  others[2].box.offset = {3, 0};
  others[3].box.extents = {4, 3};
  others[4].dtype = DType::i32;
  const std::string hash = slice_hash(7, slice, data.data());
  EXPECT_EQ(slice_hash(7, slice, data.data()), hash);
  EXPECT_NE(slice_hash(8, slice, data.data()), hash);
  for (const SliceRecord& other : others) EXPECT_NE(slice_hash(7, other, data.data()), hash);
}

TEST_F(CheckpointDamage, ASliceCannotStandForAnother) {
  // Equal shapes and a valid manifest: only the slices' own hashes tell them apart.
  const std::string weight = R"("name":"weight/model.embed_tokens.weight")";
  const std::string moment = R"("name":"adam_m/model.embed_tokens.weight")";
  for (int rank = 0; rank < 2; ++rank) {
    forge_manifest(weight, R"("name":"swap")");
    forge_manifest(moment, R"("name":"tmp1")");
  }
  for (int rank = 0; rank < 2; ++rank) {
    forge_manifest(R"("name":"swap")", moment);
    forge_manifest(R"("name":"tmp1")", weight);
  }
  EXPECT_THAT(error(), AllOf(HasSubstr("embed_tokens"), HasSubstr("does not match")));
}

TEST_F(CheckpointDamage, ANewerFormatSaysSo) {
  forge_manifest("\"format_version\":1", "\"format_version\":2");
  EXPECT_THAT(error(), HasSubstr("written by format version 2, this program reads 1"));
}

}  // namespace
}  // namespace jamba::test
