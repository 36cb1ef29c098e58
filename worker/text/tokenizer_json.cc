// Reads tokenizer.json and tokenizer_config.json: the only place of this room that knows JSON.
// Every component is either implemented exactly or refused by its name.
#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/text/nfc.h"
#include "worker/text/tokenizer_data.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

using Json = nlohmann::json;

// Far above any vocabulary; keeps a broken file from asking for the machine's memory.
constexpr std::int64_t kMaxId = 1 << 24;

// ByteLevel's own rule (GPT-2's), in force when it has use_regex.
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::unexpected<Error> refuse(std::string message) {
  return fail(ErrorKind::kInvalid, std::move(message));
}

std::unexpected<Error> unsupported(const std::string& part, const std::string& type) {
  return refuse("the " + part + " '" + type + "' is not supported");
}

const Json& field(const Json& object, const char* name) {
  static const Json none;
  auto found = object.find(name);
  return found == object.end() ? none : *found;
}

bool flag(const Json& object, const char* name, bool otherwise) {
  const Json& value = field(object, name);
  return value.is_null() ? otherwise : value.get<bool>();
}

std::string type_of(const Json& object) {
  return object.value("type", "without a type");
}

// Byte-level BPE writes each byte as a printable character: most of Latin-1 as itself, the other 68
// from U+0100 on.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    bytes_.fill(-1);
    int other = 0;
    for (int b = 0; b < 256; ++b) {
      bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      bytes_[static_cast<std::size_t>(itself ? b : 256 + other++)] = static_cast<std::int16_t>(b);
    }
  }

  // The bytes that a token's text stands for. A token with any other character (an added one)
  // stands for itself.
  std::string bytes(const std::string& token) const {
    std::string out;
    for (std::size_t i = 0; i < token.size(); ++i) {
      auto c = static_cast<unsigned char>(token[i]);
      std::size_t code = c;
      if (c >= 0x80) {
        // All characters of the alphabet have at most two bytes.
        if ((c & 0xE0) != 0xC0 || i + 1 == token.size()) return token;
        code = static_cast<std::size_t>((c & 0x1F) << 6 |
                                        (static_cast<unsigned char>(token[++i]) & 0x3F));
      }
      if (code >= bytes_.size() || bytes_[code] < 0) return token;
      out.push_back(static_cast<char>(bytes_[code]));
    }
    return out;
  }

 private:
  std::array<std::int16_t, 256 + 68> bytes_{};  // code point -> byte, -1 for none
};

class Reader {
 public:
  Result<TokenizerData> read(const Json& file, const Json& config);

 private:
  Status read_normalizer(const Json& normalizer);
  Status read_pre_tokenizer(const Json& pre_tokenizer);
  Status read_split(const Json& split);
  Status read_byte_level(const Json& byte_level);
  Status add_rule(const char* pattern, SplitBehavior behavior);
  Status read_decoder(const Json& decoder);
  Status read_model(const Json& model);
  Status read_vocabulary(const Json& vocab);
  Status read_merges(const Json& merges);
  Status read_added_tokens(const Json& tokens);
  Status read_post_processor(const Json& processor);
  Status read_template_items(const Json& processor);
  Status read_config(const Json& config);
  Status put_piece(std::int64_t id, const std::string& bytes);
  Result<std::optional<std::int32_t>> token_of(const Json& value, const char* what) const;

  ByteAlphabet alphabet_;
  std::unordered_map<std::string, std::int32_t> vocab_;  // as written in the file
  TokenizerData data_;
  bool byte_level_ = false;
};

Status Reader::read_normalizer(const Json& normalizer) {
  if (normalizer.is_null()) return {};
  std::string type = type_of(normalizer);
  if (type == "NFC") {
    data_.nfc = true;
    return {};
  }
  if (type != "Sequence") return unsupported("normalizer", type);
  for (const Json& inner : field(normalizer, "normalizers")) {
    if (Status status = read_normalizer(inner); !status) return status;
  }
  return {};
}

Status Reader::add_rule(const char* pattern, SplitBehavior behavior) {
  Result<Pattern> compiled = Pattern::compile(pattern);
  if (!compiled) return std::unexpected(compiled.error());
  data_.pre_tokenizer.rules.push_back({std::move(*compiled), behavior, false});
  return {};
}

Status Reader::read_split(const Json& split) {
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  auto name = split.at("behavior").get<std::string>();
  const auto* behavior = std::ranges::find(kBehaviors, name, [](const auto& b) { return b.first; });
  if (behavior == std::end(kBehaviors)) return unsupported("split behavior", name);
  if (behavior->second == SplitBehavior::kRemoved) data_.loses_text = true;

  const Json& pattern = split.at("pattern");
  bool invert = flag(split, "invert", false);
  if (pattern.contains("String")) {
    auto literal = pattern.at("String").get<std::string>();
    if (literal.empty()) return refuse("a split on empty text");
    data_.pre_tokenizer.rules.push_back({std::move(literal), behavior->second, invert});
    return {};
  }
  auto regex = pattern.at("Regex").get<std::string>();
  Result<Pattern> compiled = Pattern::compile(regex);
  if (!compiled) return wrap(compiled.error(), "split rule '" + regex + "'");
  data_.pre_tokenizer.rules.push_back({std::move(*compiled), behavior->second, invert});
  return {};
}

Status Reader::read_byte_level(const Json& byte_level) {
  byte_level_ = true;
  if (flag(byte_level, "add_prefix_space", true)) {
    data_.pre_tokenizer.prefix_space_at = static_cast<int>(data_.pre_tokenizer.rules.size());
  }
  if (!flag(byte_level, "use_regex", true)) return {};
  return add_rule(kByteLevelPattern, SplitBehavior::kIsolated);
}

Status Reader::read_pre_tokenizer(const Json& pre_tokenizer) {
  if (pre_tokenizer.is_null()) return {};
  std::string type = type_of(pre_tokenizer);
  if (type == "Sequence") {
    for (const Json& inner : pre_tokenizer.at("pretokenizers")) {
      if (Status status = read_pre_tokenizer(inner); !status) return status;
    }
    return {};
  }
  // ByteLevel rewrites the text; rules behind it would see its alphabet instead of the text.
  if (byte_level_)
    return refuse("the pre-tokenizer '" + type +
                  "' stands behind ByteLevel, which is not supported");
  if (type == "ByteLevel") return read_byte_level(pre_tokenizer);
  if (type == "Split") return read_split(pre_tokenizer);
  if (type == "Digits") {
    return add_rule("\\p{N}", flag(pre_tokenizer, "individual_digits", false)
                                  ? SplitBehavior::kIsolated
                                  : SplitBehavior::kContiguous);
  }
  return unsupported("pre-tokenizer", type);
}

Status Reader::read_decoder(const Json& decoder) {
  if (decoder.is_null()) return refuse("there is no decoder (ByteLevel is needed)");
  std::string type = type_of(decoder);
  if (type == "Sequence") {
    const Json& inner = decoder.at("decoders");
    if (inner.size() == 1) return read_decoder(inner.front());
  }
  if (type != "ByteLevel") return unsupported("decoder", type);
  return {};
}

Status Reader::put_piece(std::int64_t id, const std::string& bytes) {
  if (id < 0 || id >= kMaxId) return refuse("token id " + std::to_string(id) + " is out of bounds");
  auto at = static_cast<std::size_t>(id);
  if (data_.pieces.size() <= at) data_.pieces.resize(at + 1);
  if (!data_.pieces[at].empty()) return refuse("two tokens have the id " + std::to_string(id));
  data_.pieces[at] = bytes;
  data_.longest_piece = std::max(data_.longest_piece, bytes.size());
  return {};
}

Status Reader::read_vocabulary(const Json& vocab) {
  data_.bpe.byte_ids.fill(-1);
  for (const auto& [token, value] : vocab.items()) {
    auto id = value.get<std::int64_t>();
    std::string bytes = alphabet_.bytes(token);
    if (Status status = put_piece(id, bytes); !status) return status;
    vocab_[token] = static_cast<std::int32_t>(id);
    if (bytes.size() == 1) {
      data_.bpe.byte_ids[static_cast<unsigned char>(bytes[0])] = static_cast<std::int32_t>(id);
    }
    if (data_.bpe.ignore_merges) data_.bpe.tokens[bytes] = static_cast<std::int32_t>(id);
  }
  if (std::ranges::find(data_.bpe.byte_ids, -1) != data_.bpe.byte_ids.end())
    data_.loses_text = true;
  return {};
}

Status Reader::read_merges(const Json& merges) {
  if (merges.size() >= static_cast<std::size_t>(kMaxId)) return refuse("too many merges");
  data_.bpe.merges = MergeTable(merges.size());
  std::int32_t rank = 0;
  for (const Json& merge : merges) {
    std::string left;
    std::string right;
    if (merge.is_string()) {  // "a b", the older form
      const auto& line = merge.get_ref<const std::string&>();
      std::size_t space = line.find(' ');
      if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
        return refuse("merge " + std::to_string(rank) + " is not two tokens");
      }
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else {
      if (merge.size() != 2) return refuse("merge " + std::to_string(rank) + " is not two tokens");
      left = merge.at(0).get<std::string>();
      right = merge.at(1).get<std::string>();
    }
    auto a = vocab_.find(left);
    auto b = vocab_.find(right);
    auto both = vocab_.find(left + right);
    if (a == vocab_.end() || b == vocab_.end() || both == vocab_.end()) {
      return refuse("merge " + std::to_string(rank) +
                    " names a token that is not in the vocabulary");
    }
    data_.bpe.merges.put(a->second, b->second, {rank, both->second});
    ++rank;
  }
  return {};
}

Status Reader::read_model(const Json& model) {
  std::string type = model.value("type", "BPE");
  if (type != "BPE") return unsupported("model", type);
  auto is_set = [&](const char* name) {
    const Json& value = field(model, name);
    return !(value.is_null() || value == false || value == "" || value == 0.0);
  };
  for (const char* option :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    if (is_set(option)) return unsupported("BPE option", option);
  }
  data_.bpe.ignore_merges = flag(model, "ignore_merges", false);
  if (Status status = read_vocabulary(model.at("vocab")); !status) return status;
  if (is_set("unk_token") && data_.loses_text) {
    return refuse(
        "the BPE option 'unk_token' with a vocabulary that has not all bytes is not supported");
  }
  return read_merges(model.at("merges"));
}

Status Reader::read_added_tokens(const Json& tokens) {
  for (const Json& entry : tokens) {
    AddedToken token;
    token.content = entry.at("content").get<std::string>();
    if (token.content.empty()) continue;  // HF skips it
    auto id = entry.at("id").get<std::int64_t>();
    if (flag(entry, "single_word", false)) {
      return refuse("the added token '" + token.content +
                    "' has single_word, which is not supported");
    }
    if (data_.added_ids.contains(token.content)) {
      return refuse("the added token '" + token.content + "' stands there twice");
    }
    if (auto known = vocab_.find(token.content); known != vocab_.end()) {
      if (known->second != id) return refuse("the added token '" + token.content + "' has two ids");
    } else if (Status status = put_piece(id, alphabet_.bytes(token.content)); !status) {
      return status;
    }
    token.id = static_cast<std::int32_t>(id);
    token.special = flag(entry, "special", false);
    token.lstrip = flag(entry, "lstrip", false);
    token.rstrip = flag(entry, "rstrip", false);
    token.normalized = flag(entry, "normalized", !token.special);
    if (data_.nfc && token.normalized && to_nfc(token.content) != token.content) {
      return refuse("the added token '" + token.content +
                    "' is not in composed form, which is not supported");
    }
    data_.added_ids[token.content] = token.id;
    data_.longest_piece = std::max(data_.longest_piece, token.content.size());
    if (token.lstrip || token.rstrip) data_.loses_text = true;
    data_.is_special.resize(data_.pieces.size());
    data_.is_special[static_cast<std::size_t>(token.id)] = token.special;
    data_.added.add(token);
  }
  data_.is_special.resize(data_.pieces.size());
  return {};
}

// {"single": [{"SpecialToken": {"id": "<bos>"}}, {"Sequence": {"id": "A"}}], "special_tokens":
// {"<bos>": {"ids": [0]}}}
Status Reader::read_template_items(const Json& processor) {
  bool behind = false;
  for (const Json& item : processor.at("single")) {
    if (item.contains("Sequence")) {
      if (behind)
        return refuse("a post-processor template that uses its text twice is not supported");
      behind = true;
      continue;
    }
    const Json& special =
        processor.at("special_tokens").at(item.at("SpecialToken").at("id").get<std::string>());
    for (const Json& id : special.at("ids")) {
      (behind ? data_.suffix : data_.prefix).push_back(id.get<std::int32_t>());
    }
  }
  return {};
}

Status Reader::read_post_processor(const Json& processor) {
  if (processor.is_null()) return {};
  std::string type = type_of(processor);
  if (type == "ByteLevel") return {};  // moves offsets, not ids
  if (type == "TemplateProcessing") return read_template_items(processor);
  if (type == "Sequence") {
    for (const Json& inner : processor.at("processors")) {
      if (Status status = read_post_processor(inner); !status) return status;
    }
    return {};
  }
  return unsupported("post-processor", type);
}

// A token is written as its text or as an object with the text in "content".
Result<std::optional<std::int32_t>> Reader::token_of(const Json& value, const char* what) const {
  if (value.is_null()) return std::optional<std::int32_t>();
  auto content = (value.is_object() ? value.at("content") : value).get<std::string>();
  auto added = data_.added_ids.find(content);
  if (added != data_.added_ids.end()) return std::optional(added->second);
  auto known = vocab_.find(content);
  if (known != vocab_.end()) return std::optional(known->second);
  return refuse("tokenizer_config.json: the " + std::string(what) + " '" + content +
                "' is not a token");
}

Status Reader::read_config(const Json& config) {
  if (config.is_null()) return {};
  Result<std::optional<std::int32_t>> bos = token_of(field(config, "bos_token"), "bos_token");
  if (!bos) return std::unexpected(bos.error());
  Result<std::optional<std::int32_t>> eos = token_of(field(config, "eos_token"), "eos_token");
  if (!eos) return std::unexpected(eos.error());
  data_.bos = *bos;
  data_.eos = *eos;
  if (flag(config, "add_bos_token", false) && *bos && data_.prefix.empty()) {
    data_.prefix.push_back(**bos);
  }
  const Json& chat = field(config, "chat_template");
  if (chat.is_string()) data_.chat_template = chat.get<std::string>();
  if (chat.is_array()) {
    for (const Json& named : chat) {
      if (named.at("name") == "default")
        data_.chat_template = named.at("template").get<std::string>();
    }
  }
  return {};
}

Result<TokenizerData> Reader::read(const Json& file, const Json& config) {
  for (const Status& status :
       {read_normalizer(field(file, "normalizer")),
        read_pre_tokenizer(field(file, "pre_tokenizer")), read_decoder(field(file, "decoder"))}) {
    if (!status) return std::unexpected(status.error());
  }
  if (!byte_level_)
    return refuse("the pre-tokenizer has no ByteLevel: only byte-level BPE is supported");
  if (Status status = read_model(file.at("model")); !status) return std::unexpected(status.error());
  if (Status status = read_added_tokens(field(file, "added_tokens")); !status) {
    return std::unexpected(status.error());
  }
  if (Status status = read_post_processor(field(file, "post_processor")); !status) {
    return std::unexpected(status.error());
  }
  if (Status status = read_config(config); !status) return std::unexpected(status.error());
  for (const auto& ids : {data_.prefix, data_.suffix}) {
    for (std::int32_t id : ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= data_.pieces.size()) {
        return refuse("the post-processor names a token id that does not exist");
      }
    }
  }
  return std::move(data_);
}

}  // namespace

Result<TokenizerData> read_tokenizer(std::string_view tokenizer_json,
                                     std::string_view config_json) {
  try {
    Json file = Json::parse(tokenizer_json);
    if (!file.is_object()) return refuse("tokenizer.json is not a JSON object");
    Json config;
    if (!config_json.empty()) {
      config = Json::parse(config_json);
      if (!config.is_object()) return refuse("tokenizer_config.json is not a JSON object");
    }
    return Reader().read(file, config);
  } catch (const Json::exception& e) {
    return refuse(e.what());
  }
}

}  // namespace dsm::text
