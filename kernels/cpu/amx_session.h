// The tiles of AMX: 16 rows of 64 bytes each. Internal linkage, as kernels.h says.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dsm::kernels {
namespace {

// All eight tiles whole, for as long as it is there; Intel's manual, volume 1, 18.2.
class TileSession {
 public:
  TileSession() {
    Configuration configuration;
    for (int tile = 0; tile < 8; ++tile) {
      configuration.row_bytes[tile] = 64;
      configuration.rows[tile] = 16;
    }
    // Not _tile_loadconfig(), which in GCC 12 tells the compiler of 8 of the 64 bytes that are
    // read, so that it may leave out what sets the others.
    asm volatile("ldtilecfg %0" : : "m"(configuration));
  }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
  ~TileSession() { _tile_release(); }

 private:
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  };
};

}  // namespace
}  // namespace dsm::kernels
