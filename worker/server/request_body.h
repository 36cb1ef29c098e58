// What the bodies of the Responses, Messages and simple APIs have in common on their way in. Their
// conversations are read here, in files of their own; everything that chat completions have too
// (sampling, lengths, tools, formats) is handed to parse_chat() under its names there, so that it
// has one meaning and one set of bounds. For this folder's parsers.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/server/answer_json.h"
#include "worker/server/api_error.h"
#include "worker/server/api_request.h"

namespace dsm::server {

// The body as an object with its fields in the client's order (schemas go to the model as they were
// written). 400 when it is not JSON, not an object, nested too deeply, or has an object with too
// many fields.
Parsed<Json> parse_ordered(std::string_view body);

// Null when the field is absent or null.
const Json* field(const Json& object, const char* name);

// The first thing that is wrong; what comes after it is not told.
class Complaint {
 public:
  // "'path' what"
  void say(const std::string& path, const std::string& what);
  // A field that we know and do not have, unless it is one of these values (or null).
  void refuse(const Json& object, const char* name, std::initializer_list<Json> neutral = {});
  explicit operator bool() const { return error_.has_value(); }
  ApiError error() const { return *error_; }
  void take(const ApiError& error) {
    if (!error_) error_ = error;
  }

 private:
  std::optional<ApiError> error_;
};

// A text: a string, or an array of parts of one of these types with their "text".
std::string read_text(const Json& value, const std::string& path,
                      std::initializer_list<std::string_view> types, Complaint& complaint);
// A string field; empty when it is absent.
std::string read_string(const Json& object, const char* name, const std::string& path,
                        Complaint& complaint);

// Fields of a chat completion that keep their name and meaning here.
void copy_fields(const Json& from, std::initializer_list<const char*> names, Json& to);

// One name in our body and its name in the chat's.
struct Renamed {
  const char* chat;
  const char* ours;
};
// Everything but the messages. Errors name our fields.
Parsed<ChatRequest> parse_chat_fields(Json chat, std::initializer_list<Renamed> renamed,
                                      const SamplingDefaults& defaults);

// Whether an assistant made the call that a tool's answer names.
bool has_call(const std::vector<text::ChatMessage>& messages, std::string_view id);

// The open end of a conversation: the assistant's message to which a call or a text still belongs.
text::ChatMessage& assistant_turn(std::vector<text::ChatMessage>& messages);

}  // namespace dsm::server
