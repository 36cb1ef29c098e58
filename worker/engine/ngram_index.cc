#include "worker/engine/ngram_index.h"

#include <algorithm>

namespace dsm::engine {
namespace {

std::uint64_t pair_at(std::span<const TokenId> text, std::size_t second) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(text[second - 1])) << 32 |
         static_cast<std::uint32_t>(text[second]);
}

// Tokens that agree when both ends are read backwards, at most kLongest.
int agreement(std::span<const TokenId> text, std::size_t a, std::size_t b) {
  int same = 0;
  while (same < NgramIndex::kLongest && text[a] == text[b]) {
    ++same;
    if (a == 0) break;
    --a;
    --b;
  }
  return same;
}

}  // namespace

// The end of the text is put in when it is no longer the end.
void NgramIndex::extend(std::span<const TokenId> text) {
  for (std::size_t p = previous_.size(); p + 1 < text.size(); ++p) {
    std::int32_t before = -1;
    if (p > 0) {
      const auto [it, is_new] = latest_.try_emplace(pair_at(text, p), -1);
      before = it->second;
      it->second = static_cast<std::int32_t>(p);
    }
    previous_.push_back(before);
  }
}

std::vector<TokenId> NgramIndex::propose(std::span<const TokenId> text, int count) {
  extend(text);
  if (text.size() < 2 || count < 1) return {};
  const std::size_t end = text.size() - 1;
  const auto found = latest_.find(pair_at(text, end));
  if (found == latest_.end()) return {};
  int best = kShortest - 1;
  std::size_t at = 0;
  std::int32_t p = found->second;
  for (int looks = 0; p >= 0 && looks < kLooks && best < kLongest; ++looks) {
    const int same = agreement(text, static_cast<std::size_t>(p), end);
    if (same > best) {
      best = same;
      at = static_cast<std::size_t>(p);
    }
    p = previous_[static_cast<std::size_t>(p)];
  }
  if (best < kShortest) return {};
  // Where the copy runs into the end of the text it goes on with itself: a period repeats.
  std::vector<TokenId> drafts;
  for (int i = 0; i < count; ++i) {
    const std::size_t from = at + 1 + static_cast<std::size_t>(i);
    drafts.push_back(from < text.size() ? text[from] : drafts[from - text.size()]);
  }
  return drafts;
}

}  // namespace dsm::engine
