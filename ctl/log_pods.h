// Which pods' logs are shown, and the prefix of their lines. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::ctl {

struct LogPod {
  std::string name;
  std::string prefix;  // "0/1 ": group and rank; with several revisions "5f2c19aa-0/1 "
};

struct LogChoice {
  std::string group = {};  // its number, or "<revision>-<number>", or its whole name; empty: all
  int rank = -1;           // the pod that holds this rank; -1: all
};

// In the order of revision, group and rank. kNotFound says what there is.
Result<std::vector<LogPod>> choose_log_pods(const nlohmann::json& model,
                                            const std::vector<nlohmann::json>& pods,
                                            const LogChoice& choice);

// Cuts a stream of bytes into lines and puts the prefix before each. A line that is longer than
// kLongestLine is cut into several.
class LinePrefixer {
 public:
  static constexpr std::size_t kLongestLine = 64 * 1024;

  explicit LinePrefixer(std::string prefix) : prefix_(std::move(prefix)) {}

  // The lines that are complete now.
  std::string add(std::string_view bytes);
  // What is left without an end.
  std::string finish();

 private:
  std::string prefix_;
  std::string partial_;
};

}  // namespace dsm::ctl
