// A completion script for bash from the commands and their options. Pure.
#pragma once

#include <string>
#include <vector>

namespace dsm::ctl {

struct CompletedCommand {
  std::string name;
  std::vector<std::string> options;  // "--watch"
};

std::string bash_completion(const std::vector<CompletedCommand>& commands);

}  // namespace dsm::ctl
