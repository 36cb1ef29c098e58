#include "worker/text/added_tokens.h"

#include <algorithm>

namespace dsm::text {
namespace {

constexpr std::string_view kMultiByteSpaces[] = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Bytes of White_Space at the end of `text`.
std::size_t spaces_at_end(std::string_view text) {
  std::size_t size = text.size();
  for (;;) {
    std::string_view rest = text.substr(0, size);
    if (rest.empty()) break;
    if (is_ascii_space(rest.back())) {
      size -= 1;
      continue;
    }
    const auto* space =
        std::ranges::find_if(kMultiByteSpaces, [&](auto s) { return rest.ends_with(s); });
    if (space == std::end(kMultiByteSpaces)) break;
    size -= space->size();
  }
  return text.size() - size;
}

std::size_t spaces_at_start(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::string_view rest = text.substr(at);
    if (is_ascii_space(rest.front())) {
      at += 1;
      continue;
    }
    const auto* space =
        std::ranges::find_if(kMultiByteSpaces, [&](auto s) { return rest.starts_with(s); });
    if (space == std::end(kMultiByteSpaces)) break;
    at += space->size();
  }
  return at;
}

}  // namespace

void AddedTokens::add(const AddedToken& token) {
  Trie& trie = tries_[token.normalized ? 1 : 0];
  std::size_t node = 0;
  for (char c : token.content) {
    auto [child, fresh] = trie.nodes[node].next.try_emplace(
        static_cast<unsigned char>(c), static_cast<std::int32_t>(trie.nodes.size()));
    node = static_cast<std::size_t>(child->second);
    if (fresh) trie.nodes.emplace_back();
  }
  trie.nodes[node].token = static_cast<std::int32_t>(tokens_.size());
  trie.begins[static_cast<unsigned char>(token.content.front())] = true;
  tokens_.push_back(token);
}

std::int32_t AddedTokens::longest(const Trie& trie, std::string_view text) const {
  std::int32_t best = -1;
  std::size_t node = 0;
  for (char c : text) {
    auto child = trie.nodes[node].next.find(static_cast<unsigned char>(c));
    if (child == trie.nodes[node].next.end()) break;
    node = static_cast<std::size_t>(child->second);
    if (trie.nodes[node].token >= 0) best = trie.nodes[node].token;
  }
  return best;
}

void AddedTokens::cut_with(const Trie& trie, std::string_view text,
                           std::vector<Part>& parts) const {
  std::size_t done = 0;  // everything before is in `parts`
  std::size_t at = 0;
  while (at < text.size()) {
    std::int32_t found = -1;
    if (trie.begins[static_cast<unsigned char>(text[at])]) found = longest(trie, text.substr(at));
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(found)];
    std::size_t begin = at;
    std::size_t end = at + token.content.size();
    at = end;  // the search goes on behind the token itself, not behind the spaces it takes
    // Spaces that the token before took are not taken twice.
    if (token.lstrip) begin = std::max(begin - spaces_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += spaces_at_start(text.substr(end));
    if (begin > done) parts.push_back({-1, text.substr(done, begin - done)});
    parts.push_back({token.id, text.substr(begin, end - begin)});
    done = end;
  }
  if (done < text.size()) parts.push_back({-1, text.substr(done)});
}

std::vector<AddedTokens::Part> AddedTokens::cut_raw(std::string_view text) const {
  std::vector<Part> parts;
  cut_with(tries_[0], text, parts);
  return parts;
}

std::vector<AddedTokens::Part> AddedTokens::cut_normalized(std::string_view text) const {
  std::vector<Part> parts;
  if (tries_[1].nodes.size() == 1) {
    if (!text.empty()) parts.push_back({-1, text});
  } else {
    cut_with(tries_[1], text, parts);
  }
  return parts;
}

}  // namespace dsm::text
