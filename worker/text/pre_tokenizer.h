// Cuts a text into the pieces that BPE may not merge across. The rules run in order, each on the
// pieces that the one before left, and each piece is looked at alone (a lookahead sees its end as
// the text's end), as HF does it. Private to this room. Threading: immutable; split() is const.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "worker/text/pattern.h"

namespace dsm::text {

// What happens to the text that a rule matched (HF's SplitDelimiterBehavior).
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitRule {
  std::variant<Pattern, std::string> what;  // a regular expression or literal text (never empty)
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what did not match counts as the match
};

struct PreTokenizer {
  std::vector<SplitRule> rules;
  // HF's ByteLevel(add_prefix_space): a piece that does not begin with a space gets one before rule
  // number `prefix_space_at`; -1 for never.
  int prefix_space_at = -1;

  // Pieces in order, never empty; views into `text`, or into `storage` where a space was put in
  // front. `text` is valid UTF-8.
  std::vector<std::string_view> split(std::string_view text, std::string& storage) const;
};

}  // namespace dsm::text
