// Grammars that make an answer call tools, in llguidance's dialect of Lark. Of it they use: rules
// in lower case with `start` first, alternatives, + ? and groups, "strings" as JSON writes them,
// `%json {schema}` as a rule's body, `/regex/`, a rule's attribute [suffix="..."] (the text up to
// and with that string), <｜name｜> for a special token by its text and <[id]> for one by its
// number. The grammar begins behind the thought; end of sequence is not part of it. Private to this
// room.
//
// Limits: with kDsml a string parameter cannot contain "</", which ends it, and a schema's $ref is
// followed inside its own $defs only.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "worker/text/chat_family.h"

namespace dsm::text {

// Which markers are tokens; the others are spelled.
struct MarkerTokens {
  bool calls = false;      // those around calls (kTyped, kNamed)
  std::int32_t dsml = -1;  // ｜DSML｜; -1: it is text
};

Result<std::string> write_tool_grammar(ToolFormat format, const MarkerTokens& tokens,
                                       std::span<const ToolDefinition> tools,
                                       const ToolChoice& choice, bool parallel);

}  // namespace dsm::text
