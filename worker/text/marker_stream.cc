#include "worker/text/marker_stream.h"

#include <algorithm>
#include <optional>

namespace dsm::text {

std::size_t overlap(std::string_view text, std::string_view marker) {
  std::size_t size = std::min(text.size(), marker.size() - 1);
  while (size > 0 && !marker.starts_with(text.substr(text.size() - size))) --size;
  return size;
}

void MarkerStream::add(std::string_view name, bool in_text) {
  if (std::optional<std::int32_t> id = tokenizer_->special(name)) {
    tokens_.push_back({*id, name});
  } else if (in_text) {
    texts_.push_back(name);
  }
}

void MarkerStream::add_pair(std::string_view open, std::string_view close) {
  if (tokenizer_->special(open) && tokenizer_->special(close)) {
    add(open, /*in_text=*/false);
    add(close, /*in_text=*/false);
  } else {
    texts_.push_back(open);
    texts_.push_back(close);
  }
}

std::vector<MarkerStream::Event> MarkerStream::push(std::int32_t id) {
  std::vector<Event> out;
  auto known = std::ranges::find(tokens_, id, &Known::id);
  if (known != tokens_.end()) {
    held_ += decoder_.flush();  // neither a code point nor a spelled marker goes on behind it
    scan(/*at_end=*/true, out);
    out.push_back({.marker = known->name, .text = {}});
    return out;
  }
  held_ += decoder_.push(id);
  scan(/*at_end=*/false, out);
  return out;
}

std::vector<MarkerStream::Event> MarkerStream::finish() {
  std::vector<Event> out;
  held_ += decoder_.flush();
  scan(/*at_end=*/true, out);
  return out;
}

void MarkerStream::scan(bool at_end, std::vector<Event>& out) {
  std::string_view text = held_;
  auto give = [&](std::string_view part) {
    if (!part.empty()) out.push_back({.marker = {}, .text = std::string(part)});
  };
  for (;;) {
    std::size_t first = std::string_view::npos;
    std::string_view found;
    for (std::string_view name : texts_) {
      const std::size_t at = text.find(name);
      if (at < first) {
        first = at;
        found = name;
      }
    }
    if (found.empty()) break;
    give(text.substr(0, first));
    out.push_back({.marker = found, .text = {}});
    text.remove_prefix(first + found.size());
  }
  std::size_t keep = 0;
  if (!at_end) {
    for (std::string_view name : texts_) keep = std::max(keep, overlap(text, name));
  }
  give(text.substr(0, text.size() - keep));
  held_ = std::string(text.substr(text.size() - keep));
}

}  // namespace dsm::text
