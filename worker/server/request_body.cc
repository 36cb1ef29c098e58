#include "worker/server/request_body.h"

#include <algorithm>
#include <utility>

#include "worker/server/json_fields.h"

namespace dsm::server {
namespace {

struct TooLarge {
  std::string what;
};

}  // namespace

Parsed<Json> parse_ordered(std::string_view body) {
  std::vector<int> fields;  // of the objects that are open
  const auto look = [&](int depth, Json::parse_event_t event, const Json&) {
    if (depth > kMaxJsonDepth) {
      throw TooLarge{"is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels"};
    }
    if (event == Json::parse_event_t::object_start) fields.push_back(0);
    if (event == Json::parse_event_t::object_end) fields.pop_back();
    if (event == Json::parse_event_t::key && ++fields.back() > kMaxJsonMembers) {
      throw TooLarge{"has an object with more than " + std::to_string(kMaxJsonMembers) + " fields"};
    }
    return true;
  };
  try {
    Json value = Json::parse(body, look);
    if (!value.is_object()) return bad_parameter("", "the body must be a JSON object");
    return value;
  } catch (const TooLarge& problem) {
    return bad_parameter("", "the body " + problem.what);
  } catch (const Json::parse_error& problem) {
    // The library's text may quote the body: only the place is told.
    return bad_parameter(
        "", "the body is not valid JSON (at byte " + std::to_string(problem.byte) + ")");
  } catch (const Json::exception&) {
    return bad_parameter("", "the body is not valid JSON");
  }
}

const Json* field(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void Complaint::say(const std::string& path, const std::string& what) {
  if (!error_) error_ = bad_parameter(path, "'" + path + "' " + what).error();
}

void Complaint::refuse(const Json& object, const char* name, std::initializer_list<Json> neutral) {
  const Json* value = field(object, name);
  if (value == nullptr || std::find(neutral.begin(), neutral.end(), *value) != neutral.end())
    return;
  say(name, "is not supported with this value by this server");
}

std::string read_text(const Json& value, const std::string& path,
                      std::initializer_list<std::string_view> types, Complaint& complaint) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) {
    complaint.say(path, "must be a string or an array of text parts");
    return "";
  }
  std::string all;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string at = path + "[" + std::to_string(i) + "]";
    const Json* type = field(value[i], "type");
    const Json* text = field(value[i], "text");
    if (type == nullptr || !type->is_string() ||
        std::find(types.begin(), types.end(), type->get_ref<const std::string&>()) == types.end()) {
      complaint.say(at, "must be an object of type '" + std::string(*types.begin()) +
                            "': this server reads text only");
    } else if (text == nullptr || !text->is_string()) {
      complaint.say(at + ".text", "must be a string");
    } else {
      all += text->get_ref<const std::string&>();
    }
    if (complaint) return "";
  }
  return all;
}

std::string read_string(const Json& object, const char* name, const std::string& path,
                        Complaint& complaint) {
  const Json* value = field(object, name);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  complaint.say(path, "must be a string");
  return "";
}

void copy_fields(const Json& from, std::initializer_list<const char*> names, Json& to) {
  for (const char* name : names) {
    if (const Json* value = field(from, name)) to[name] = *value;
  }
}

Parsed<ChatRequest> parse_chat_fields(Json chat, std::initializer_list<Renamed> renamed,
                                      const SamplingDefaults& defaults) {
  chat["messages"] = Json::array({{{"role", "user"}, {"content", ""}}});
  auto request = parse_chat(dump(chat), defaults);
  if (request) {
    request->messages.clear();
    return request;
  }
  ApiError error = request.error();
  for (const Renamed& name : renamed) {
    const std::string_view chats = name.chat;
    if (!error.param.starts_with(chats)) continue;
    const std::string before = error.param;
    error.param = name.ours + before.substr(chats.size());
    if (const auto at = error.message.find("'" + before + "'"); at != std::string::npos) {
      error.message.replace(at + 1, before.size(), error.param);
    }
    break;
  }
  return std::unexpected(std::move(error));
}

bool has_call(const std::vector<text::ChatMessage>& messages, std::string_view id) {
  return std::ranges::any_of(messages, [&](const text::ChatMessage& message) {
    return std::ranges::find(message.tool_calls, id, &text::ToolCall::id) !=
           message.tool_calls.end();
  });
}

text::ChatMessage& assistant_turn(std::vector<text::ChatMessage>& messages) {
  if (messages.empty() || messages.back().role != text::Role::kAssistant) {
    messages.push_back({.role = text::Role::kAssistant, .content = ""});
  }
  return messages.back();
}

}  // namespace dsm::server
