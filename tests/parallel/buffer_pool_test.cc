#include "parallel/comm/buffer_pool.h"

#include <gtest/gtest.h>

namespace jamba {
namespace {

TEST(BufferPool, LendsAgainWhatCameBack) {
  BufferPool pool;
  Buffer first = pool.take(1000);
  Buffer second = pool.take(1000);
  EXPECT_GE(first.bytes(), 1000);
  EXPECT_NE(first.data(), second.data());
  void* const memory = first.data();
  pool.give(std::move(first));
  EXPECT_NE(pool.take(5000).data(), memory);
  first = pool.take(900);
  EXPECT_EQ(first.data(), memory);
  EXPECT_NE(pool.take(1000).data(), memory);
}

TEST(BufferPool, LendsNothingForNothing) {
  BufferPool pool;
  EXPECT_EQ(pool.take(0).bytes(), 0);
  pool.give({});
  EXPECT_GE(pool.take(1).bytes(), 1);
}

}  // namespace
}  // namespace jamba
