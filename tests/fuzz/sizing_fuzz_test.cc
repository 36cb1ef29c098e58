// Wrong config.jsons: refused with a sentence, or of a size that is a number.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "sizing/fit.h"
#include "tests/fuzz/mutate.h"

namespace dsm::sizing {
namespace {

void expect_sizes(const Shape& shape) {
  for (const std::int64_t tensor : {1, 2, 4, 8}) {
    if (!check_cut(shape, tensor)) continue;
    for (const Device device : {Device::kCpu, Device::kGpu}) {
      const Ask ask{.device = device,
                    .cut = {.tensor = tensor, .drafts = true, .deterministic = tensor > 2},
                    .sharing = tensor,
                    .context = shape.max_positions};
      const Fit found = fit(shape, ask, std::int64_t{80} << 30);
      EXPECT_GT(found.parts.weights, 0);
      EXPECT_GT(found.parts.cache_per_token, 0);
      EXPECT_GE(found.need, found.parts.fixed());
      EXPECT_FALSE(sentence(shape, ask, found, {"memory", "tensor", "context", "kv"}).empty());
    }
  }
}

TEST(ShapeFuzz, ABrokenConfigIsRefusedOrHasSizes) {
  for (const char* path :
       {"sizing/models/deepseek-v3.json", "sizing/models/llama-2-13b.json",
        "tests/goldens/families/deepseek_v32/config.json", "tests/fuzz/corpora/config/gptq.json",
        "tests/fuzz/corpora/config/awq.json", "tests/fuzz/corpora/config/pack-quantized.json"}) {
    std::ifstream in(path);
    const std::string good{std::istreambuf_iterator<char>(in), {}};
    ASSERT_TRUE(parse_shape(good, "config.json").has_value()) << path;
    fuzz::Random random(4);
    int accepted = 0;
    for (int i = 0; i < 2000; ++i) {
      const auto shape = parse_shape(fuzz::mutate(good, random), "config.json");
      if (!shape) {
        EXPECT_TRUE(shape.error().message.starts_with("config.json: ")) << shape.error().message;
        continue;
      }
      ++accepted;
      expect_sizes(*shape);
    }
    EXPECT_GT(accepted, 20) << path;
  }
}

}  // namespace
}  // namespace dsm::sizing
