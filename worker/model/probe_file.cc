#include "worker/model/probe_file.h"

#include <fstream>
#include <string>

#include "worker/model/config_fields.h"

namespace dsm::model {
namespace {

using config_detail::Fields;
using config_detail::Json;
using config_detail::Wrong;

constexpr std::size_t kMaxBytes = 64 << 10;

std::vector<engine::TokenId> tokens(const Fields& fields, const char* key, int vocab_size) {
  const Json& list = fields.at(key);
  if (!list.is_array() || list.empty()) {
    throw Wrong{"field " + std::string(key) + " is not a list of token ids"};
  }
  std::vector<engine::TokenId> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      throw Wrong{"field " + std::string(key) + " has " + id.dump().substr(0, 20) +
                  ", which is no token id; the model has " + std::to_string(vocab_size)};
    }
    ids.push_back(id.get<engine::TokenId>());
  }
  return ids;
}

}  // namespace

Result<ProbeFile> parse_probe_file(std::string_view text, int vocab_size, int max_tokens) {
  const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return fail(ErrorKind::kInvalid, "is not a JSON object");
  try {
    const Fields fields(object, "");
    ProbeFile probe{.prompt = tokens(fields, "prompt", vocab_size),
                    .answer = tokens(fields, "answer", vocab_size)};
    if (std::ssize(probe.prompt) + std::ssize(probe.answer) > max_tokens) {
      throw Wrong{"prompt and answer have more than " + std::to_string(max_tokens) + " tokens"};
    }
    return probe;
  } catch (const Wrong& wrong) {
    return fail(ErrorKind::kInvalid, wrong.message);
  }
}

Result<std::optional<ProbeFile>> load_probe_file(const std::filesystem::path& dir, int vocab_size,
                                                 int max_tokens) {
  const auto path = dir / "probe.json";
  std::error_code missing;
  if (!std::filesystem::exists(path, missing)) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kMaxBytes) {
    return fail(ErrorKind::kInvalid, path.string() + ": is larger than 64 KiB");
  }
  auto probe = parse_probe_file(text, vocab_size, max_tokens);
  if (!probe) return wrap(probe.error(), path.string());
  return std::optional(std::move(*probe));
}

}  // namespace dsm::model
