#include "trainer/config/scalars.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace jamba::config {
namespace {

using ::testing::HasSubstr;

std::int64_t integer(const char* text) {
  std::int64_t value = -77;
  EXPECT_EQ(parse_integer(text, value), "") << text;
  return value;
}

std::string integer_fault(const char* text) {
  std::int64_t value = -77;
  std::string fault = parse_integer(text, value);
  EXPECT_EQ(value, -77) << text << " changed the value";
  return fault;
}

TEST(ParseInteger, ReadsWhatPeopleWrite) {
  EXPECT_EQ(integer("0"), 0);
  EXPECT_EQ(integer("12"), 12);
  EXPECT_EQ(integer("-3"), -3);
  EXPECT_EQ(integer("+3"), 3);
  EXPECT_EQ(integer("1_000"), 1000);
  EXPECT_EQ(integer("1_000_000"), 1000000);
  EXPECT_EQ(integer("1e6"), 1000000);
  EXPECT_EQ(integer("1.5e3"), 1500);
  EXPECT_EQ(integer("2500e-2"), 25);
  EXPECT_EQ(integer("12.0"), 12);
  EXPECT_EQ(integer("4k"), 4000);
  EXPECT_EQ(integer("1.5k"), 1500);
  EXPECT_EQ(integer("3M"), 3000000);
  EXPECT_EQ(integer("2G"), 2000000000);
  EXPECT_EQ(integer("4Ki"), 4096);
  EXPECT_EQ(integer("2Mi"), 2097152);
  EXPECT_EQ(integer("1Gi"), 1073741824);
  EXPECT_EQ(integer("0.5Mi"), 524288);
  EXPECT_EQ(integer("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
}

TEST(ParseInteger, SaysInWordsWhatIsWrong) {
  for (const char* text : {"abc", "", "-", "12x", "0x10", "1e", "e5", "_1", "1_", "1__0", "4 k",
                           "4K", "2mi", ".", "1.2.3", "--1", "true"}) {
    EXPECT_EQ(integer_fault(text), std::string("expected an integer, got '") + text + "'");
  }
  EXPECT_EQ(integer_fault("1.5"), "expected an integer, got '1.5', a fraction");
  EXPECT_EQ(integer_fault("15e-1"), "expected an integer, got '15e-1', a fraction");
  EXPECT_EQ(integer_fault("010"),
            "'010' has a leading zero, which some readers take for octal; write 10");
  EXPECT_THAT(integer_fault("-007"), HasSubstr("write -7"));
  EXPECT_THAT(integer_fault("00"), HasSubstr("write 0"));
  for (const char* text : {"9223372036854775808", "99999999999999999999", "1e19", "1e999999999999",
                           "9223372036854775807k"}) {
    EXPECT_THAT(integer_fault(text), HasSubstr("too large for a 64-bit integer")) << text;
  }
  EXPECT_EQ(integer_fault(std::string(100, 'x').c_str()),
            "expected an integer, got '" + std::string(40, 'x') + "...'");
}

TEST(ParseReal, ReadsWhatPeopleWrite) {
  const auto real = [](const char* text) {
    double value = -77;
    EXPECT_EQ(parse_real(text, value), "") << text;
    return value;
  };
  EXPECT_EQ(real("0"), 0.0);
  EXPECT_EQ(real("3e-4"), 3e-4);
  EXPECT_EQ(real("0.1"), 0.1);
  EXPECT_EQ(real("-.5"), -0.5);
  EXPECT_EQ(real("5."), 5.0);
  EXPECT_EQ(real("1_000.25"), 1000.25);
  EXPECT_EQ(real("1E+3"), 1000.0);
  EXPECT_EQ(real("0.30000000000000004"), 0.30000000000000004);
}

TEST(ParseReal, SaysInWordsWhatIsWrong) {
  const auto fault = [](const char* text) {
    double value = -77;
    std::string words = parse_real(text, value);
    EXPECT_EQ(value, -77) << text << " changed the value";
    return words;
  };
  for (const char* text : {".nan", ".NaN", "nan", ".inf", "-.inf", "inf", "-Infinity"}) {
    EXPECT_EQ(fault(text), std::string("must be a finite number, got '") + text + "'");
  }
  for (const char* text : {"abc", "", "1,5", "3e-4x", "0x1p3", "1e", "4k"}) {
    EXPECT_EQ(fault(text), std::string("expected a number, got '") + text + "'");
  }
  EXPECT_THAT(fault("01.5"), HasSubstr("leading zero"));
  EXPECT_THAT(fault("1e400"), HasSubstr("too large"));
  EXPECT_THAT(fault("1e-400"), HasSubstr("too close to zero"));
}

TEST(ParseBoolean, KnowsTrueAndFalseOnly) {
  bool value = false;
  EXPECT_EQ(parse_boolean("true", value), "");
  EXPECT_TRUE(value);
  EXPECT_EQ(parse_boolean("False", value), "");
  EXPECT_FALSE(value);
  EXPECT_EQ(parse_boolean("TRUE", value), "");
  EXPECT_TRUE(value);
  for (const char* text : {"yes", "no", "on", "off", "1", "0", "tRue", ""}) {
    EXPECT_EQ(parse_boolean(text, value),
              std::string("expected true or false, got '") + text + "'");
  }
}

}  // namespace
}  // namespace jamba::config
