// The markers of the DeepSeek chat templates, as they are spelled. Whether one is a token of its
// own is for the tokenizer to say. Private to this room.
#pragma once

#include <string_view>

namespace dsm::text::markers {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";
inline constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
inline constexpr std::string_view kOutputsBegin = "<｜tool▁outputs▁begin｜>";
inline constexpr std::string_view kOutputsEnd = "<｜tool▁outputs▁end｜>";
inline constexpr std::string_view kOutputBegin = "<｜tool▁output▁begin｜>";
inline constexpr std::string_view kOutputEnd = "<｜tool▁output▁end｜>";
inline constexpr std::string_view kDsml = "｜DSML｜";

// All of them; none is part of what a client sees.
inline constexpr std::string_view kAll[] = {kBos,        kEos,         kUser,       kAssistant,
                                            kThinkOpen,  kThinkClose,  kCallsBegin, kCallsEnd,
                                            kCallBegin,  kCallEnd,     kSeparator,  kOutputsBegin,
                                            kOutputsEnd, kOutputBegin, kOutputEnd,  kDsml};

}  // namespace dsm::text::markers
