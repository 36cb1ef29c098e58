#include "worker/server/template_tools.h"

#include <string>

namespace dsm::server {

bool has_tools(const text::ChatTemplate& /*chat_template*/) {
  return false;  // no built-in template has a place for them
}

Result<std::optional<grammar::GrammarSpec>> tool_grammar(
    const text::ChatTemplate& chat_template, const std::vector<text::ToolDefinition>& tools,
    const ToolChoice& /*choice*/, bool /*parallel*/) {
  if (tools.empty()) return std::nullopt;
  return fail(ErrorKind::kInvalid,
              "the chat template '" + std::string(chat_template.name()) + "' has no tools");
}

}  // namespace dsm::server
