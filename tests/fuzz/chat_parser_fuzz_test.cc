// Outputs with calls of tools, broken in every way and cut in every way: what comes out does not
// depend on the cuts, holds no part of a marker, and its whole calls are JSON.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/fuzz/mutate.h"
#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/test_tokenizer.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

using namespace markers;
using fuzz::Random;

constexpr std::string_view kMarkers[] = {kBos,       kEos,        kUser,       kAssistant,
                                         kThinkOpen, kThinkClose, kCallsBegin, kCallsEnd,
                                         kCallBegin, kCallEnd,    kSeparator,  kDsml};
constexpr std::string_view kParts[] = {"a",
                                       " ",
                                       "\n",
                                       "<",
                                       "</",
                                       ">",
                                       "function",
                                       "get_weather",
                                       "```json\n",
                                       "\n```",
                                       "`",
                                       "{\"a\": \"b\"}",
                                       "{",
                                       "}",
                                       "中",
                                       "function_calls>",
                                       "invoke name=\"f\">",
                                       "invoke>",
                                       "parameter name=\"k\" string=\"true\">",
                                       "parameter name=\"n\" string=\"false\">",
                                       "parameter>",
                                       "[1]",
                                       "\""};

// The markers are tokens or text; some text comes in longer pieces than bytes.
Tokenizer make_tokenizer(bool tokens, Random& random) {
  TokenizerJson file;
  file.all_bytes();
  for (int i = 0; i < 12; ++i) {
    std::string word(random.pick(kParts));
    if (word.size() < 2 || word.find_first_of(" \n") != std::string::npos ||
        static_cast<unsigned char>(word[0]) >= 0x80) {
      continue;
    }
    std::string whole(1, word[0]);
    for (char c : word.substr(1, random.below(word.size()))) {
      file.merge(whole, std::string(1, c));
      whole += c;
    }
  }
  for (std::string_view marker : kMarkers) {
    const bool needed = marker == kBos || marker == kEos || marker == kUser ||
                        marker == kAssistant || marker == kThinkOpen || marker == kThinkClose;
    if (needed || tokens) {
      file.added(std::string(marker), {{"special", false}, {"normalized", false}});
    }
  }
  return file.build();
}

struct Seen {
  std::string reasoning;
  std::string content;
  std::map<int, std::pair<std::string, std::string>> calls;
  bool operator==(const Seen&) const = default;
};

Seen parse(const Tokenizer& tokenizer, const std::string& name,
           const std::vector<std::int32_t>& ids) {
  auto parser = ChatTemplate::by_name(tokenizer, name)->output_parser(tokenizer, true, true);
  Seen seen;
  auto add = [&](const OutputParser::Delta& delta) {
    EXPECT_TRUE(is_valid_utf8(delta.reasoning) && is_valid_utf8(delta.content));
    seen.reasoning += delta.reasoning;
    seen.content += delta.content;
    for (const ToolCallPiece& piece : delta.tool_calls) {
      EXPECT_TRUE(is_valid_utf8(piece.arguments));
      const bool is_new = !seen.calls.contains(piece.index);
      EXPECT_EQ(is_new, !piece.name.empty() || piece.index == static_cast<int>(seen.calls.size()));
      EXPECT_LE(piece.index, static_cast<int>(seen.calls.size()));
      seen.calls[piece.index].first += piece.name;
      seen.calls[piece.index].second += piece.arguments;
    }
  };
  for (std::int32_t id : ids) add(parser->push(id));
  add(parser->finish());
  return seen;
}

std::string some_output(Random& random) {
  std::string output;
  for (std::size_t i = random.below(40); i > 0; --i) {
    output += random.chance(35) ? random.pick(kMarkers) : random.pick(kParts);
    if (random.chance(8)) {
      output += "\n\n<" + std::string(kDsml) + "function_calls>\n<" + std::string(kDsml) +
                "invoke name=\"f\">\n";
    }
    if (random.chance(8)) {
      output += std::string(kCallsBegin) + std::string(kCallBegin) + "function" +
                std::string(kSeparator) + "f\n```json\n{}";
    }
  }
  return output;
}

class ChatParserFuzz : public testing::TestWithParam<const char*> {};

TEST_P(ChatParserFuzz, CutsDoNotMatterAndNoMarkerComesOut) {
  Random random(7);
  for (int round = 0; round < 16; ++round) {
    const bool tokens = round % 2 == 0;
    Tokenizer bytes = make_tokenizer(tokens, random);
    Tokenizer pieces = make_tokenizer(tokens, random);
    for (int i = 0; i < 30; ++i) {
      const std::string output = some_output(random);
      Seen seen = parse(bytes, GetParam(), bytes.encode(output, SpecialTokens::kAllow));
      ASSERT_EQ(seen, parse(pieces, GetParam(), pieces.encode(output, SpecialTokens::kAllow)))
          << output;
      for (std::string_view marker : kMarkers) {
        // Where they are no tokens, those that the format does not use are ordinary text.
        if (!tokens) continue;
        ASSERT_EQ(seen.content.find(marker), std::string::npos) << output;
        ASSERT_EQ(seen.reasoning.find(marker), std::string::npos) << output;
        for (const auto& [index, call] : seen.calls) {
          ASSERT_EQ(call.first.find(marker), std::string::npos) << output;
          ASSERT_EQ(call.second.find(marker), std::string::npos) << output;
        }
      }
    }
  }
}

TEST_P(ChatParserFuzz, WhatATemplateWritesItsParserReads) {
  Random random(8);
  Tokenizer tokenizer = make_tokenizer(true, random);
  ChatTemplate chat = *ChatTemplate::by_name(tokenizer, GetParam());
  for (int i = 0; i < 300; ++i) {
    ChatMessage answer{.role = Role::kAssistant, .content = random.chance(50) ? "text" : ""};
    if (std::string_view(GetParam()) == "deepseek-r1") answer.content.clear();
    for (std::size_t n = 1 + random.below(3); n > 0; --n) {
      nlohmann::ordered_json arguments = nlohmann::ordered_json::object();
      for (std::size_t k = random.below(4); k > 0; --k) {
        std::string key = "k" + std::to_string(k);
        if (random.chance(50)) {
          arguments[key] = std::string(random.pick(kParts)) + std::string(random.pick(kParts));
          if (arguments[key].get<std::string>().find("</") != std::string::npos) continue;
        } else {
          arguments[key] = {1, nullptr, {{"x", true}}};
        }
      }
      answer.tool_calls.push_back(
          {.id = "", .name = "f" + std::to_string(n), .arguments = arguments.dump()});
    }
    const std::vector<ChatMessage> messages = {{.role = Role::kUser, .content = "q"}, answer};
    const ChatOptions options{.add_generation_prompt = false};
    std::string prompt = chat.render(messages, options);
    const std::size_t at = prompt.find(kAssistant);
    Result<EncodedPrompt> encoded = chat.encode(tokenizer, messages, options);
    ASSERT_TRUE(encoded.has_value()) << encoded.error().message;
    ASSERT_NE(at, std::string::npos);
    auto begin = std::ranges::find(encoded->ids, *tokenizer.special(kAssistant)) + 1;
    Seen seen = parse(tokenizer, GetParam(), {begin, encoded->ids.end()});
    ASSERT_EQ(seen.content + seen.reasoning, answer.content) << prompt;
    ASSERT_EQ(seen.calls.size(), answer.tool_calls.size()) << prompt;
    for (std::size_t n = 0; n < answer.tool_calls.size(); ++n) {
      const auto& call = seen.calls[static_cast<int>(n)];
      ASSERT_EQ(call.first, answer.tool_calls[n].name);
      ASSERT_EQ(nlohmann::json::parse(call.second),
                nlohmann::json::parse(answer.tool_calls[n].arguments))
          << prompt;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Templates, ChatParserFuzz,
                         testing::Values("deepseek-r1", "deepseek-v3-0324", "deepseek-v3.1",
                                         "deepseek-v3.2"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::erase_if(name, [](char c) {
                             return !std::isalnum(static_cast<unsigned char>(c));
                           });
                           return name;
                         });

}  // namespace
}  // namespace dsm::text
