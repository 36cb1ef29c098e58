// Grammars of answers that call tools, in llguidance's dialect of Lark. Of it they use: rules in
// lower case with `start` first, terminals in upper case, which take as much text as they can,
// alternatives, + * ? and groups, "strings" as JSON writes them, `%json {schema}` as a rule's body,
// `/regex/`, & and ~ between them (both match; does not match), a rule's attributes
// [suffix="..."] (the text up to and with that string) and [lazy] (it ends where it first matches),
// <｜name｜> for a special token by its text and <[id]> for one by its number. End of sequence is
// not part of it. Private to this room.
//
// A grammar that forces calls begins behind the thought; one that only holds the calls that the
// model makes (ToolChoice::Mode::kAuto) begins with the output, and the thought is text to it.
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
  bool thought = false;    // <think> and </think>
  std::int32_t dsml = -1;  // ｜DSML｜; -1: it is text
};

Result<std::string> write_tool_grammar(ToolFormat format, const MarkerTokens& tokens,
                                       std::span<const ToolDefinition> tools,
                                       const ToolChoice& choice, bool parallel);

}  // namespace dsm::text
