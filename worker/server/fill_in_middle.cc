#include "worker/server/fill_in_middle.h"

#include <optional>
#include <string>

namespace dsm::server {

Result<std::vector<std::int32_t>> fill_in_middle(const text::Tokenizer& tokenizer,
                                                 std::string_view prefix, std::string_view suffix) {
  std::vector<std::int32_t> ids = tokenizer.encode_prompt("");  // BOS where the files ask for it
  std::optional<std::string_view> missing;
  const auto marker = [&](std::string_view name) {
    if (const auto id = tokenizer.special(name)) {
      ids.push_back(*id);
    } else {
      missing = name;
    }
  };
  const auto text = [&](std::string_view part) {
    const auto more = tokenizer.encode(part, text::SpecialTokens::kTreatAsText);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  marker("<｜fim▁begin｜>");
  text(prefix);
  marker("<｜fim▁hole｜>");
  text(suffix);
  marker("<｜fim▁end｜>");
  if (missing) {
    return fail(ErrorKind::kInvalid,
                "the model cannot fill in a gap: it has no token " + std::string(*missing));
  }
  return ids;
}

}  // namespace dsm::server
