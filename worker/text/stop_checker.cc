#include "worker/text/stop_checker.h"

#include <algorithm>
#include <utility>

namespace dsm::text {
namespace {

// The longest end of `text` that is a beginning of `stop`, but not all of it.
std::size_t overlap(std::string_view text, std::string_view stop) {
  std::size_t size = std::min(text.size(), stop.size() - 1);
  while (size > 0 && !stop.starts_with(text.substr(text.size() - size))) --size;
  return size;
}

}  // namespace

StopChecker::StopChecker(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

StopChecker::Output StopChecker::push(std::string_view text) {
  if (matched_) return {"", true};
  held_ += text;
  std::size_t end = std::string::npos;
  const std::string* first = nullptr;
  for (const std::string& stop : stops_) {
    std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    std::size_t stop_end = at + stop.size();
    if (first == nullptr || stop_end < end || (stop_end == end && stop.size() > first->size())) {
      end = stop_end;
      first = &stop;
    }
  }
  Output output;
  if (first != nullptr) {
    matched_ = *first;
    output.stopped = true;
    held_.resize(include_stop_ ? end : end - first->size());
    output.text = std::exchange(held_, {});
    return output;
  }
  std::size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, overlap(held_, stop));
  output.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return output;
}

std::string StopChecker::flush() {
  return std::exchange(held_, {});
}

}  // namespace dsm::text
