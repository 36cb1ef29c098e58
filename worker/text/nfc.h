// Unicode's composed form (NFC), for tokenizers that normalise their text (Qwen's). The tables are
// those of HF tokenizers (nfc_tables.h). Functions without state; private to this room.
#pragma once

#include <string>
#include <string_view>

namespace dsm::text {

// At least 1/kNfcShrinks of a text's bytes are left: a composed letter has a third of its parts'
// bytes at least, and a letter with a twin that NFC prefers (U+1FEF and U+0060) three times those
// of it.
inline constexpr std::size_t kNfcShrinks = 9;

// `utf8` is valid. Takes time and memory in proportion to it.
std::string to_nfc(std::string_view utf8);
// Whether to_nfc() certainly gives the same text; quick, true for most.
bool is_surely_nfc(std::string_view utf8);

}  // namespace dsm::text
