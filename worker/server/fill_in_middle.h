// The prompt of a text that is missing between two others (`suffix` of text completions), as
// DeepSeek's models were trained on it: the beginning, a marker for the hole, the end.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

// kInvalid: the tokenizer lacks one of the markers. Both texts are only text: what looks like a
// marker in them is none.
Result<std::vector<std::int32_t>> fill_in_middle(const text::Tokenizer& tokenizer,
                                                 std::string_view prefix, std::string_view suffix);

}  // namespace dsm::server
