#include "worker/text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "worker/text/tokenizer_data.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

// Below this a text has too few repeated words for remembering them to pay.
constexpr std::size_t kCacheFrom = 2048;
constexpr std::size_t kCachePiece = 32;  // bytes; longer pieces do not come back
constexpr std::size_t kCacheEntries = 1 << 16;

// Encodes pieces and remembers short ones, for one call.
class PieceEncoder {
 public:
  PieceEncoder(const Bpe& bpe, bool remember, std::vector<std::int32_t>& out)
      : bpe_(bpe), remember_(remember), out_(out) {}

  // `piece` outlives the encoder.
  void encode(std::string_view piece) {
    if (!remember_ || piece.size() > kCachePiece) {
      bpe_.encode(piece, scratch_, out_);
      return;
    }
    if (auto known = known_.find(piece); known != known_.end()) {
      const Place place = known->second;
      for (std::size_t i = 0; i < place.count; ++i) out_.push_back(out_[place.begin + i]);
      return;
    }
    std::size_t begin = out_.size();
    bpe_.encode(piece, scratch_, out_);
    if (known_.size() < kCacheEntries) known_.emplace(piece, Place{begin, out_.size() - begin});
  }

 private:
  struct Place {
    std::size_t begin;
    std::size_t count;
  };
  const Bpe& bpe_;
  bool remember_;
  std::vector<std::int32_t>& out_;
  Bpe::Scratch scratch_;
  std::unordered_map<std::string_view, Place> known_;  // piece -> its ids' place in out_
};

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ErrorKind::kNotFound, path.string() + ": cannot be opened");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return fail(ErrorKind::kInvalid, path.string() + ": cannot be read");
  return text;
}

}  // namespace

struct Tokenizer::Impl : TokenizerData {
  explicit Impl(TokenizerData data) : TokenizerData(std::move(data)) {}
  // Text without added tokens.
  void encode_text(std::string_view text, std::vector<std::int32_t>& out) const;
};

void Tokenizer::Impl::encode_text(std::string_view text, std::vector<std::int32_t>& out) const {
  std::string storage;
  PieceEncoder encoder(bpe, text.size() >= kCacheFrom, out);
  for (std::string_view piece : pre_tokenizer.split(text, storage)) encoder.encode(piece);
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json, std::string_view config_json) {
  Result<TokenizerData> data = read_tokenizer(tokenizer_json, config_json);
  if (!data) return std::unexpected(data.error());
  return Tokenizer(std::make_unique<const Impl>(std::move(*data)));
}

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  Result<std::string> file = read_file(tokenizer_json);
  if (!file) return std::unexpected(file.error());
  std::filesystem::path config_path = tokenizer_json.parent_path() / "tokenizer_config.json";
  std::string config;
  if (std::filesystem::exists(config_path)) {
    Result<std::string> read = read_file(config_path);
    if (!read) return std::unexpected(read.error());
    config = std::move(*read);
  }
  Result<TokenizerData> data = read_tokenizer(*file, config);
  if (!data) return wrap(data.error(), tokenizer_json.string());
  // Newer checkpoints keep the template in a file of its own, which then is the one that counts.
  std::filesystem::path template_path = tokenizer_json.parent_path() / "chat_template.jinja";
  if (std::filesystem::exists(template_path)) {
    Result<std::string> read = read_file(template_path);
    if (!read) return std::unexpected(read.error());
    data->chat_template = std::move(*read);
  }
  data->v32_encoder =
      std::filesystem::exists(tokenizer_json.parent_path() / "encoding" / "encoding_dsv32.py");
  return Tokenizer(std::make_unique<const Impl>(std::move(*data)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view utf8, SpecialTokens special) const {
  std::string mended;
  if (!is_valid_utf8(utf8)) {
    mended = to_valid_utf8(utf8);
    utf8 = mended;
  }
  std::vector<std::int32_t> ids;
  if (special == SpecialTokens::kTreatAsText) {
    impl_->encode_text(utf8, ids);
    return ids;
  }
  for (const AddedTokens::Part& part : impl_->added.cut(utf8)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      impl_->encode_text(part.text, ids);
    }
  }
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_prompt(std::string_view utf8) const {
  std::vector<std::int32_t> ids = encode(utf8, SpecialTokens::kAllow);
  const auto& prefix = impl_->prefix;
  bool there = ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
  if (!there) ids.insert(ids.begin(), prefix.begin(), prefix.end());
  ids.insert(ids.end(), impl_->suffix.begin(), impl_->suffix.end());
  return ids;
}

std::size_t Tokenizer::least_tokens(std::string_view utf8) const {
  if (impl_->loses_text) return 0;
  return (utf8.size() + impl_->longest_piece - 1) / impl_->longest_piece;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string text;
  Utf8Assembler utf8;
  for (std::int32_t id : ids) {
    if (!(skip_special && is_special(id))) utf8.push(piece(id), text);
  }
  utf8.flush(text);
  return text;
}

std::string_view Tokenizer::piece(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return impl_->pieces[static_cast<std::size_t>(id)];
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(impl_->pieces.size());
}
std::optional<std::int32_t> Tokenizer::bos() const {
  return impl_->bos;
}
std::optional<std::int32_t> Tokenizer::eos() const {
  return impl_->eos;
}

std::optional<std::int32_t> Tokenizer::special(std::string_view name) const {
  auto found = impl_->added_ids.find(std::string(name));
  if (found == impl_->added_ids.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->is_special[static_cast<std::size_t>(id)];
}

std::string_view Tokenizer::chat_template() const {
  return impl_->chat_template;
}

bool Tokenizer::has_v32_encoder() const {
  return impl_->v32_encoder;
}

}  // namespace dsm::text
