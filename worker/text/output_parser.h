// A model's output, token by token, taken apart into reasoning, answer and tool calls, by the rules
// of its chat template (ChatTemplate::output_parser makes it). Markers go into none of them, also
// when they are cut over tokens. One per stream; not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsm::text {

// A piece of a tool call: the name is whole and comes in the call's first piece only.
struct ToolCallPiece {
  int index = 0;  // of the call within the output
  std::string name;
  std::string
      arguments;  // JSON text; the pieces of a call joined are valid JSON if the model's were
};

class OutputParser {
 public:
  struct Delta {
    std::string reasoning;
    std::string content;
    std::vector<ToolCallPiece> tool_calls;
    bool empty() const { return reasoning.empty() && content.empty() && tool_calls.empty(); }
  };

  virtual ~OutputParser() = default;
  virtual Delta push(std::int32_t id) = 0;
  // The end of the output: what was held back.
  virtual Delta finish() = 0;
  virtual bool in_reasoning() const = 0;
  // Tokens produced while reasoning, the closing marker included (usage.reasoning_tokens).
  virtual int reasoning_tokens() const = 0;
};

}  // namespace dsm::text
