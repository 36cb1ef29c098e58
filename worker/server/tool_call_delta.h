// A piece of a tool call in a streamed answer.
#pragma once

#include <string>

namespace dsm::server {

struct ToolCallDelta {
  int index = 0;          // of the call within the answer
  std::string id = {};    // in the first piece of a call only
  std::string name = {};  // likewise
  std::string arguments = {};
};

}  // namespace dsm::server
