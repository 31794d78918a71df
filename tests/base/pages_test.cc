// Memory in large pages: as Buffer::allocate gives it, whatever the size.
#include "base/pages.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

#include "bp/error.h"

namespace bp {
namespace {

TEST(Pages, AreAlignedWritableAndReadableBehindTheEnd) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{100}, (std::size_t{4} << 20) - 1, std::size_t{4} << 20,
                                  (std::size_t{9} << 20) + 12345}) {
    const Buffer b = allocate_pages(bytes);
    EXPECT_EQ(b.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data()) % 64, 0u);
    std::memset(b.mutable_data(), 7, bytes + 64);
    EXPECT_EQ(b.as<unsigned char>()[bytes + 63], 7);
  }
}

#ifdef __linux__
TEST(Pages, OfLargeOnesBeginWithAPageOfTwoMebibytes) {
  const Buffer b = allocate_pages(std::size_t{5} << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data()) % (std::size_t{2} << 20), 0u);
}
#endif

TEST(Pages, TooManyAreAnError) { EXPECT_THROW(allocate_pages(std::size_t{1} << 47), Error); }

}  // namespace
}  // namespace bp
