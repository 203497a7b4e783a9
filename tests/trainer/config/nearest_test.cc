#include "trainer/config/nearest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace jamba::config {
namespace {

const std::vector<std::string_view> kKeys = {
    "lr",      "learning_rate", "min_lr", "num_experts", "attn_layer_period", "attn_layer_offset",
    "seq_len", "steps"};

TEST(Nearest, FindsSlipsOfTheHand) {
  EXPECT_EQ(nearest("lerning_rate", kKeys), "learning_rate");
  EXPECT_EQ(nearest("num_expert", kKeys), "num_experts");
  EXPECT_EQ(nearest("setps", kKeys), "steps");
  EXPECT_EQ(nearest("num-experts", kKeys), "num_experts");
  EXPECT_EQ(nearest("Seq_Len", kKeys), "seq_len");
}

TEST(Nearest, FindsAbbreviations) {
  EXPECT_EQ(nearest("attn_perid", kKeys), "attn_layer_period");
  EXPECT_EQ(nearest("seq", kKeys), "seq_len");
  const std::vector<std::string_view> dtypes = {"float32", "bfloat16"};
  EXPECT_EQ(nearest("f32", dtypes), "float32");
  EXPECT_EQ(nearest("bf16", dtypes), "bfloat16");
}

TEST(Nearest, IsSilentWhereNothingIsNear) {
  for (const char* typed : {"", "x", "banana", "colour", "dropout", "experts_of_the_whole_world"}) {
    EXPECT_EQ(nearest(typed, kKeys), "") << typed;
  }
  EXPECT_EQ(nearest(std::string(1000, 's'), kKeys), "");
  EXPECT_EQ(nearest("lr", {}), "");
  const std::vector<std::string_view> short_words = {"tag"};
  EXPECT_EQ(nearest("dog", short_words), "");  // two letters of three differ
  EXPECT_EQ(nearest("nx", kKeys), "");         // two letters abbreviate too much
  EXPECT_EQ(nearest("expts", kKeys), "");      // an abbreviation starts as its word does
}

}  // namespace
}  // namespace jamba::config
