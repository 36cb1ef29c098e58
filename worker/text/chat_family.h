// One chat template built in: what it is called, which texts it is chosen by, which markers it
// uses, and the function that writes a conversation as its Jinja text would. Private to this room;
// chat_template.h is the face.
//
// A writer follows the template to the byte, its oddities included: the prompt that the model's
// makers wrote down is the one their clients measured. Threading: constant tables and functions.
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "worker/text/chat_template.h"

namespace dsm::text {

// How the model writes a call of a tool.
enum class ToolFormat {
  kNone,   // it has no form for it
  kTyped,  // function<sep>NAME\n```json\n{..}\n``` between markers (V3, R1)
  kNamed,  // NAME<sep>{..} between markers (V3.1)
  kDsml,   // tags with the mark ｜DSML｜ in them, one per parameter (V3.2)
};

enum class Thinking {
  kNever,
  kAlways,    // the template has no switch
  kSwitched,  // ChatOptions::thinking says
};

// Where a prompt goes, in order: markers, and text that must not become one.
class PromptSink {
 public:
  virtual ~PromptSink() = default;
  virtual void marker(std::string_view name) = 0;
  virtual void text(std::string_view text) = 0;
};

// Writes the whole prompt; returns whether it ends inside a thought. kInvalid: this conversation
// has no form in the template.
using PromptWriter = Result<bool> (*)(std::span<const ChatMessage> messages,
                                      const ChatOptions& options, PromptSink& out);

struct ChatFamily {
  std::string_view name;
  std::span<const std::string_view> sha256;  // of the template's texts, hexadecimal
  std::span<const std::string_view> needed;  // markers that must be tokens; others may be text
  ToolFormat tools;
  Thinking thinking;
  PromptWriter write;
};

// Every template that is built in.
std::span<const ChatFamily> chat_families();

// A message's text behind the thought that an older client may have left in it. `first` cuts at the
// first closing marker, otherwise at the last.
std::string_view without_thought(std::string_view content, bool first);

// The description of the tools that goes behind the system prompt, where the template's text itself
// has none for them: for kNamed the form that DeepSeek-V3.1's model card gives, for kTyped the same
// with that form of a call.
Status write_tools(std::span<const ToolDefinition> tools, ToolFormat format, PromptSink& out);

// The writers, one file per family.
Result<bool> write_tiny(std::span<const ChatMessage> messages, const ChatOptions& options,
                        PromptSink& out);
Result<bool> write_v2(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out);
Result<bool> write_v3(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out);
Result<bool> write_v3_0324(std::span<const ChatMessage> messages, const ChatOptions& options,
                           PromptSink& out);
Result<bool> write_r1_first(std::span<const ChatMessage> messages, const ChatOptions& options,
                            PromptSink& out);
Result<bool> write_r1_distill(std::span<const ChatMessage> messages, const ChatOptions& options,
                              PromptSink& out);
Result<bool> write_r1(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out);
Result<bool> write_r1_0528(std::span<const ChatMessage> messages, const ChatOptions& options,
                           PromptSink& out);
Result<bool> write_v31(std::span<const ChatMessage> messages, const ChatOptions& options,
                       PromptSink& out);
Result<bool> write_v31_terminus(std::span<const ChatMessage> messages, const ChatOptions& options,
                                PromptSink& out);
Result<bool> write_v32(std::span<const ChatMessage> messages, const ChatOptions& options,
                       PromptSink& out);

}  // namespace dsm::text
