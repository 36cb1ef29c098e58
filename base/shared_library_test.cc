#include "base/shared_library.h"

#include <gtest/gtest.h>

namespace dsm {
namespace {

TEST(SharedLibrary, FindsFunctionsByTheirFirstNameThatIsThere) {
  auto library = SharedLibrary::open({"libno-such.so.1", "libm.so.6"});
  ASSERT_TRUE(library) << library.error().message;
  double (*root)(double) = nullptr;
  library->find(root, {"no_such_root", "sqrt"});
  ASSERT_NE(root, nullptr);
  EXPECT_EQ(root(9.0), 3.0);
  EXPECT_EQ(library->missing(), "");
}

TEST(SharedLibrary, SaysWhatIsMissing) {
  const auto absent = SharedLibrary::open({"libno-such.so.1", "libno-such.so.2"});
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(absent.error().message.find("libno-such.so.1"), std::string::npos);
  EXPECT_NE(absent.error().message.find("libno-such.so.2"), std::string::npos);

  auto library = SharedLibrary::open({"libm.so.6"});
  ASSERT_TRUE(library);
  void (*function)() = nullptr;
  library->find(function, {"first", "its_older_name"});
  library->find(function, "second");
  EXPECT_EQ(function, nullptr);
  EXPECT_EQ(library->missing(), "first, second");
}

}  // namespace
}  // namespace dsm
