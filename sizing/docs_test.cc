// The tables of docs/sizing.md are what the formulas say; a row that is not is printed.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

#include "sizing/fit.h"
#include "sizing/testing.h"

namespace dsm::sizing {
namespace {

using testing::public_shape;

constexpr std::int64_t kGiB = 1 << 30;

struct Row {
  const char* file;  // in sizing/models
  const char* name;
};
constexpr Row kRows[] = {{"deepseek-llm-7b", "deepseek-llm-7b"},
                         {"r1-distill-qwen-7b", "R1-Distill-Qwen-7B"},
                         {"r1-0528-qwen3-8b", "R1-0528-Qwen3-8B"},
                         {"llama-2-13b", "Llama-2-13B"},
                         {"deepseek-v2-lite", "V2-Lite 16B"},
                         {"r1-distill-qwen-32b", "R1-Distill-Qwen-32B"},
                         {"r1-distill-llama-70b", "R1-Distill-Llama-70B"},
                         {"deepseek-v2", "V2 236B"},
                         {"deepseek-v3", "V3, R1 671B (FP8)"}};

// 212,992
std::string grouped(std::int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), ",");
  }
  return text;
}

std::int64_t context_of(const Shape& shape) {
  return std::min<std::int64_t>(32768, shape.max_positions);
}

// The fewest accelerators of so much memory, and the tokens that their cache then holds.
std::string on_accelerators(const Shape& shape, std::int64_t memory) {
  for (const std::int64_t tensor : {1, 2, 4, 8}) {
    if (!check_cut(shape, tensor)) continue;
    const Fit found = fit(shape,
                          {.device = Device::kGpu,
                           .cut = {.tensor = tensor, .deterministic = false},
                           .kv_type = KvType::kBf16,
                           .context = context_of(shape),
                           .step = {.batch_tokens = 8192, .sequences = 256}},
                          memory);
    if (found.fits) return std::to_string(tensor) + ": " + grouped(found.max_kv_tokens);
  }
  return "more than 8";
}

std::string row_of(const Row& row) {
  const Shape shape = public_shape(row.file);
  const Fit cpu = fit(shape, {.device = Device::kCpu, .context = context_of(shape)}, 0);
  std::string text = "| " + std::string(row.name) + " | " + grouped(context_of(shape)) + " | " +
                     bytes_text(weight_bytes(shape, {}, Device::kGpu)) + " | " +
                     bytes_text(cache_bytes_per_token(shape, {}, KvType::kBf16));
  for (const std::int64_t gib : {39, 79, 139}) text += " | " + on_accelerators(shape, gib * kGiB);
  return text + " | " + bytes_text(cpu.need * 25 / 24) + " |";
}

TEST(Docs, the_table_of_models_is_what_is_computed) {
  std::ifstream file("docs/sizing.md");
  const std::string docs((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const Row& row : kRows) {
    const std::string line = row_of(row);
    EXPECT_TRUE(docs.contains("\n" + line + "\n")) << line;
  }
}

}  // namespace
}  // namespace dsm::sizing
