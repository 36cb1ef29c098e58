// Fill in the middle: the prompt for what stands between two texts, for models that were trained
// for it (DeepSeek-Coder, V2, V3). Functions without state.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/text/tokenizer.h"

namespace dsm::text {

// BOS where the tokenizer's files ask for it,
// <｜fim▁begin｜>prefix<｜fim▁hole｜>suffix<｜fim▁end｜>. The texts cannot forge a marker.
// kInvalid: the tokenizer lacks one of the markers.
Result<std::vector<std::int32_t>> fim_prompt(const Tokenizer& tokenizer, std::string_view prefix,
                                             std::string_view suffix);

}  // namespace dsm::text
