// Matchers of grammars that were compiled before: a grammar that is here again costs a copy. What
// was used longest ago makes room, when there are too many or their texts are too long together.
//
// Thread-safe. Invariant: a matcher in here has taken no token.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "worker/grammar/constraint.h"

namespace dsm::grammar {

class MatcherCache {
 public:
  MatcherCache(std::size_t most, std::size_t most_bytes) : most_(most), most_bytes_(most_bytes) {}

  // A matcher of its own for the caller; null when this grammar is not here.
  MatcherPtr find(DsmGrammarKind kind, std::string_view text);
  // Keeps a copy of a matcher that was just compiled.
  void insert(DsmGrammarKind kind, std::string_view text, const DsmGrammarMatcher& fresh);

 private:
  struct Entry {
    std::string key;
    MatcherPtr matcher;
  };

  const std::size_t most_;
  const std::size_t most_bytes_;  // of the keys
  std::mutex mutex_;              // also while a matcher is copied
  std::list<Entry> entries_;      // the one used last is in front
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
  std::size_t bytes_ = 0;
};

}  // namespace dsm::grammar
