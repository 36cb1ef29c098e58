#include "worker/grammar/matcher_cache.h"

#include <iterator>
#include <utility>

namespace dsm::grammar {
namespace {

std::string key_of(DsmGrammarKind kind, std::string_view text) {
  std::string key(1, static_cast<char>('0' + kind));
  key += text;
  return key;
}

}  // namespace

MatcherPtr MatcherCache::find(DsmGrammarKind kind, std::string_view text) {
  const std::string key = key_of(kind, text);
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return MatcherPtr(dsm_grammar_copy(found->second->matcher.get()));
}

void MatcherCache::insert(DsmGrammarKind kind, std::string_view text,
                          const DsmGrammarMatcher& fresh) {
  Entry entry{key_of(kind, text), MatcherPtr(dsm_grammar_copy(&fresh))};
  if (!entry.matcher) return;
  std::list<Entry> dropped;  // destroyed without the lock
  const std::lock_guard lock(mutex_);
  if (by_key_.contains(entry.key)) return;  // another thread has compiled it, too
  bytes_ += entry.key.size();
  entries_.push_front(std::move(entry));
  by_key_.emplace(entries_.front().key, entries_.begin());
  while (!entries_.empty() && (entries_.size() > most_ || bytes_ > most_bytes_)) {
    by_key_.erase(entries_.back().key);
    bytes_ -= entries_.back().key.size();
    dropped.splice(dropped.end(), entries_, std::prev(entries_.end()));
  }
}

}  // namespace dsm::grammar
