#include "worker/text/fim.h"

#include <optional>
#include <string>

namespace dsm::text {

Result<std::vector<std::int32_t>> fim_prompt(const Tokenizer& tokenizer, std::string_view prefix,
                                             std::string_view suffix) {
  constexpr std::string_view kBegin = "<｜fim▁begin｜>";
  constexpr std::string_view kHole = "<｜fim▁hole｜>";
  constexpr std::string_view kEnd = "<｜fim▁end｜>";
  for (std::string_view marker : {kBegin, kHole, kEnd}) {
    if (!tokenizer.special(marker)) {
      return fail(ErrorKind::kInvalid,
                  "suffix: the model's tokenizer does not have the token " + std::string(marker) +
                      ", so it cannot fill in the middle; send the request without suffix");
    }
  }
  std::vector<std::int32_t> ids = tokenizer.encode_prompt(kBegin);
  auto add = [&](std::string_view text, std::string_view marker) {
    std::vector<std::int32_t> part = tokenizer.encode(text, SpecialTokens::kTreatAsText);
    ids.insert(ids.end(), part.begin(), part.end());
    ids.push_back(tokenizer.special(marker).value_or(-1));
  };
  add(prefix, kHole);
  add(suffix, kEnd);
  return ids;
}

}  // namespace dsm::text
