// Finds stop strings in streamed text. Text that could be the beginning of a stop string is held
// back until it is known not to be, so a client never sees a part of one. The stop string that is
// complete first wins (the longest of those that end at the same byte), which does not depend on
// how the text was cut into chunks. One per stream; not thread-safe. Chunks are whole code points
// (as StreamDecoder gives them), so is the output.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsm::text {

class StopChecker {
 public:
  struct Output {
    std::string text;      // may go to the client now
    bool stopped = false;  // a stop string is complete; nothing comes after this
  };

  // Empty stop strings are ignored. With include_stop the stop string itself is part of the text.
  explicit StopChecker(std::vector<std::string> stops, bool include_stop = false);

  Output push(std::string_view text);
  // The end of the stream without a stop string: what was held back.
  std::string flush();

  // The stop string that ended the stream.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace dsm::text
