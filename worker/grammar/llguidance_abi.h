// The C functions of the static library in rust/: llguidance behind a face that we own. Only this
// room includes it.
//
// No call aborts or throws: a failure inside, a panic too, is an answer. A failed matcher stays
// failed. Threading: a factory may be used by any number of threads, a matcher by one at a time.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct DsmGrammarFactory;
struct DsmGrammarMatcher;

enum DsmGrammarKind : std::int32_t {
  kDsmGrammarJsonSchema = 0,
  kDsmGrammarRegex = 1,
  kDsmGrammarLark = 2,
};

// `bytes` are the texts of the tokens one after the other, `lengths` how long each is; a token
// without a text is never allowed. Byte 0xFF in front marks a token that stands for itself and not
// for its text: Lark names it `<name>`, and no text matches it. Null: `error` says why, as a C
// string that is cut where `error_room` ends. The same for all functions with these two.
DsmGrammarFactory* dsm_grammar_factory_new(const std::uint8_t* bytes, const std::uint32_t* lengths,
                                           std::uint32_t vocab_size, const std::uint32_t* eos,
                                           std::size_t eos_count, char* error,
                                           std::size_t error_room);
void dsm_grammar_factory_free(DsmGrammarFactory* factory);

// `text` is UTF-8. The matcher may outlive its factory.
DsmGrammarMatcher* dsm_grammar_compile(const DsmGrammarFactory* factory, std::int32_t kind,
                                       const std::uint8_t* text, std::size_t text_len, char* error,
                                       std::size_t error_room);
// A matcher in the same state that shares nothing with this one; null: it could not be copied.
DsmGrammarMatcher* dsm_grammar_copy(const DsmGrammarMatcher* matcher);
void dsm_grammar_free(DsmGrammarMatcher* matcher);

// Sets the bits of the tokens that may come next and clears the others. False: the matcher failed
// (a limit of its work), and no bit is set.
bool dsm_grammar_fill_mask(DsmGrammarMatcher* matcher, std::uint32_t* mask, std::size_t words);
// False: the token may not come next, nothing changed.
bool dsm_grammar_accept(DsmGrammarMatcher* matcher, std::uint32_t token);
bool dsm_grammar_rollback(DsmGrammarMatcher* matcher, std::size_t tokens);

}  // extern "C"
