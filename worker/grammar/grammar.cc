#include "worker/grammar/grammar.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <string_view>

#include "worker/grammar/constraint.h"
#include "worker/grammar/llguidance_abi.h"
#include "worker/grammar/matcher_cache.h"

namespace dsm::grammar {
namespace {

// Of an error's sentence. llguidance quotes what it complains of, which may be as long as the
// grammar.
constexpr std::size_t kErrorRoom = 600;

// Bounds of what one request may ask to compile. An expression of the first size with nothing but
// optional parts takes tens of milliseconds in each mask; the library bounds Lark further.
constexpr std::size_t kMaxExpression = std::size_t{8} << 10;
constexpr std::size_t kMaxText = std::size_t{128} << 10;
constexpr std::size_t kMaxChoices = 4096;

// Of all grammars that are kept: a compiled one takes memory in proportion to its text.
constexpr std::size_t kMaxKeptBytes = std::size_t{1} << 20;

// Stands in front of the name of a token that is not text (see llguidance_abi.h). It occurs in no
// UTF-8, so that an ordinary token that begins with it is never needed.
constexpr char kNotText = '\xFF';

struct FactoryDeleter {
  void operator()(DsmGrammarFactory* factory) const { dsm_grammar_factory_free(factory); }
};

// Added tokens are not text: a JSON string has no `</think>` in it, and Lark names them. Those that
// are not marked special are only when they look so; others stand for words.
bool is_marker(const text::Tokenizer& tokenizer, engine::TokenId id, std::string_view piece) {
  if (tokenizer.is_special(id)) return true;
  return piece.size() > 2 && piece.front() == '<' && piece.back() == '>' &&
         tokenizer.special(piece) == id;
}

// An expression that matches exactly this text.
std::string escaped(std::string_view text) {
  static constexpr std::string_view kMeta = R"(\.+*?()|[]{}^$#&-~/)";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      static constexpr std::string_view kHex = "0123456789ABCDEF";
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 0xF];
      continue;
    }
    if (kMeta.contains(c)) out += '\\';
    out += c;
  }
  return out;
}

struct Source {
  DsmGrammarKind kind;
  std::string_view name;  // in errors
  std::string text;
};

Result<Source> source_of(const GrammarSpec& spec) {
  switch (spec.kind) {
    case Kind::kJsonObject:
      return Source{kDsmGrammarJsonSchema, "JSON object", R"({"type":"object"})"};
    case Kind::kJsonSchema:
      return Source{kDsmGrammarJsonSchema, "JSON Schema", spec.text};
    case Kind::kRegex:
      // Between slashes nothing would be a comment.
      if (spec.text.empty()) {
        return fail(ErrorKind::kInvalid, "regular expression: it is empty");
      }
      return Source{kDsmGrammarRegex, "regular expression", spec.text};
    case Kind::kLark:
      return Source{kDsmGrammarLark, "Lark grammar", spec.text};
    case Kind::kChoice:
      break;
  }
  if (spec.choices.empty() || spec.choices.size() > kMaxChoices) {
    return fail(ErrorKind::kInvalid, "choice: give 1 to " + std::to_string(kMaxChoices) +
                                         " texts, not " + std::to_string(spec.choices.size()));
  }
  std::string any;
  for (const std::string& choice : spec.choices) {
    if (choice.empty()) return fail(ErrorKind::kInvalid, "choice: a text is empty");
    if (!any.empty()) any += '|';
    any += escaped(choice);
  }
  return Source{kDsmGrammarRegex, "choice", "(?:" + any + ")"};
}

}  // namespace

struct GrammarFactory::Impl {
  explicit Impl(std::size_t kept) : cache(kept, kMaxKeptBytes) {}

  std::unique_ptr<DsmGrammarFactory, FactoryDeleter> factory;
  MatcherCache cache;
  std::atomic<std::uint64_t> compilations = 0;
};

GrammarFactory::GrammarFactory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrammarFactory::~GrammarFactory() = default;

Result<std::unique_ptr<GrammarFactory>> GrammarFactory::make(const text::Tokenizer& tokenizer,
                                                             std::int32_t vocab_size,
                                                             std::span<const engine::TokenId> eos,
                                                             std::size_t kept) {
  std::string bytes;
  std::vector<std::uint32_t> lengths;
  lengths.reserve(static_cast<std::size_t>(std::max(vocab_size, 0)));
  for (engine::TokenId id = 0; id < vocab_size; ++id) {
    const std::string_view piece =
        id < tokenizer.vocab_size() ? tokenizer.piece(id) : std::string_view();
    const std::size_t begin = bytes.size();
    if (!piece.empty() && is_marker(tokenizer, id, piece)) {
      bytes += kNotText;
      bytes += piece;
    } else if (!piece.starts_with(kNotText)) {
      bytes += piece;
    }
    lengths.push_back(static_cast<std::uint32_t>(bytes.size() - begin));
  }
  std::vector<std::uint32_t> ends;
  for (const engine::TokenId id : eos) {
    if (id < 0 || id >= vocab_size) {
      return fail(ErrorKind::kInvalid, "grammars: the token " + std::to_string(id) +
                                           " that ends a text is not in the vocabulary of " +
                                           std::to_string(vocab_size));
    }
    ends.push_back(static_cast<std::uint32_t>(id));
  }
  std::array<char, kErrorRoom> error{};
  auto impl = std::make_unique<Impl>(kept);
  impl->factory.reset(
      dsm_grammar_factory_new(reinterpret_cast<const std::uint8_t*>(bytes.data()), lengths.data(),
                              static_cast<std::uint32_t>(lengths.size()), ends.data(), ends.size(),
                              error.data(), error.size()));
  if (!impl->factory) {
    return fail(ErrorKind::kInvalid, std::string("grammars: ") + error.data());
  }
  return std::unique_ptr<GrammarFactory>(new GrammarFactory(std::move(impl)));
}

Result<std::shared_ptr<engine::TokenConstraint>> GrammarFactory::compile(
    const GrammarSpec& spec, std::optional<engine::TokenId> after) const {
  Result<Source> source = source_of(spec);
  if (!source) return std::unexpected(std::move(source).error());
  const std::size_t most = spec.kind == Kind::kRegex ? kMaxExpression : kMaxText;
  if (source->text.size() > most) {
    return fail(ErrorKind::kInvalid,
                std::string(source->name) + ": " + std::to_string(source->text.size()) +
                    " bytes are more than the " + std::to_string(most) + " that are allowed");
  }
  if (MatcherPtr found = impl_->cache.find(source->kind, source->text)) {
    return std::make_shared<Constraint>(std::move(found), after);
  }
  ++impl_->compilations;
  std::array<char, kErrorRoom> error{};
  MatcherPtr matcher(dsm_grammar_compile(impl_->factory.get(), source->kind,
                                         reinterpret_cast<const std::uint8_t*>(source->text.data()),
                                         source->text.size(), error.data(), error.size()));
  if (!matcher) {
    return fail(ErrorKind::kInvalid, std::string(source->name) + ": " + error.data());
  }
  impl_->cache.insert(source->kind, source->text, *matcher);
  return std::make_shared<Constraint>(std::move(matcher), after);
}

std::uint64_t GrammarFactory::compilations() const {
  return impl_->compilations;
}

}  // namespace dsm::grammar
