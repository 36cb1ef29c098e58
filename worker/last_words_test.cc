#include "worker/last_words.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace dsm::worker {
namespace {

constexpr std::size_t kBytes = 4096;

TEST(LastWordsDeathTest, explain_a_mapped_file_that_is_cut) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        std::string path = testing::TempDir() + "/mapped-XXXXXX";
        const int file = mkstemp(path.data());
        ::unlink(path.c_str());
        if (file < 0 || ::ftruncate(file, kBytes) != 0) ::_exit(1);
        const auto* mapped = static_cast<volatile const char*>(
            ::mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE, file, 0));
        explain_bus_errors();
        if (mapped[0] != 0 || ::ftruncate(file, 0) != 0) ::_exit(2);
        ::_exit(mapped[kBytes - 1]);
      },
      testing::KilledBySignal(SIGBUS), "DeviceError: bus error");
}

}  // namespace
}  // namespace dsm::worker
