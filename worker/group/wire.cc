#include "worker/group/wire.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

namespace dsm::group {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

class Writer {
 public:
  template <typename T>
    requires std::is_arithmetic_v<T>
  void number(T value) {
    // One by one: GCC 12 warns of an overflow that is not there when a range is inserted.
    for (const std::byte b : std::bit_cast<std::array<std::byte, sizeof(T)>>(value)) {
      out_.push_back(b);
    }
  }
  void text(std::string_view s) {
    number(static_cast<std::uint32_t>(s.size()));
    const auto bytes = std::as_bytes(std::span(s));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  template <typename T>
  void numbers(const std::vector<T>& values) {
    number(static_cast<std::uint32_t>(values.size()));
    const auto bytes = std::as_bytes(std::span(values));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

// Reads what Writer wrote. After the first thing that is not there, everything reads as zero or
// empty and ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> in) : in_(in) {}

  template <typename T>
    requires std::is_arithmetic_v<T>
  T number() {
    T value{};
    const auto bytes = take(sizeof(T));
    if (!bytes.empty()) {
      std::memcpy(&value, bytes.data(), sizeof(T));
    }
    return value;
  }
  std::string text() {
    const auto bytes = take(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  template <typename T>
  std::vector<T> numbers() {
    const std::size_t count = number<std::uint32_t>();
    const auto bytes = take(count * sizeof(T));
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) {
      std::memcpy(values.data(), bytes.data(), bytes.size());
    }
    return values;
  }
  // A count of things that take at least `smallest` bytes each.
  std::size_t count(std::size_t smallest) {
    const std::size_t n = number<std::uint32_t>();
    ok_ = ok_ && n <= in_.size() / smallest;
    return ok_ ? n : 0;
  }
  template <typename E>
  E choice(E last) {
    const auto value = number<std::uint8_t>();
    ok_ = ok_ && value <= static_cast<std::uint8_t>(last);
    return ok_ ? static_cast<E>(value) : E{};
  }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t n) {
    if (!ok_ || n > in_.size()) {
      ok_ = false;
      return {};
    }
    const auto bytes = in_.first(n);
    in_ = in_.subspan(n);
    return bytes;
  }

  std::span<const std::byte> in_;
  bool ok_ = true;
};

enum class Presence : std::uint8_t { kAbsent, kThere };

void write(Writer& w, const Challenge& m) {
  w.text(m.nonce);
}
void read(Reader& r, Challenge& m) {
  m.nonce = r.text();
}

void write(Writer& w, const Hello& m) {
  w.number(m.pod_index);
  w.number(m.tensor_parallel);
  w.number(m.ranks_per_pod);
  w.number(m.highest_epoch);
  w.text(m.revision);
  w.text(m.model_digest);
  w.text(m.nonce);
  w.text(m.proof);
}
void read(Reader& r, Hello& m) {
  m.pod_index = r.number<std::int32_t>();
  m.tensor_parallel = r.number<std::int32_t>();
  m.ranks_per_pod = r.number<std::int32_t>();
  m.highest_epoch = r.number<std::uint64_t>();
  m.revision = r.text();
  m.model_digest = r.text();
  m.nonce = r.text();
  m.proof = r.text();
}

void write(Writer& w, const Welcome& m) {
  w.text(m.proof);
}
void read(Reader& r, Welcome& m) {
  m.proof = r.text();
}

void write(Writer& w, const Refused& m) {
  w.text(m.message);
}
void read(Reader& r, Refused& m) {
  m.message = r.text();
}

// What need not be there: whether it is, and what it is.
template <typename T>
void write(Writer& w, const std::optional<T>& value) {
  w.number(static_cast<std::uint8_t>(value.has_value()));
  if (value) w.number(*value);
}
template <typename T>
void read(Reader& r, std::optional<T>& value) {
  if (r.choice(Presence::kThere) == Presence::kThere) value = r.number<T>();
}

void write(Writer& w, const std::optional<health::RemappedRows>& rows) {
  w.number(static_cast<std::uint8_t>(rows.has_value()));
  if (!rows) return;
  w.number(rows->corrected);
  w.number(rows->uncorrected);
  w.number(static_cast<std::uint8_t>(rows->pending));
  w.number(static_cast<std::uint8_t>(rows->failed));
}
void read(Reader& r, std::optional<health::RemappedRows>& rows) {
  if (r.choice(Presence::kThere) != Presence::kThere) return;
  rows.emplace();
  rows->corrected = r.number<std::uint32_t>();
  rows->uncorrected = r.number<std::uint32_t>();
  rows->pending = r.number<std::uint8_t>() != 0;
  rows->failed = r.number<std::uint8_t>() != 0;
}

void write(Writer& w, const health::Signs& s) {
  write(w, s.sm_clock_mhz);
  write(w, s.memory_clock_mhz);
  write(w, s.throttle);
  write(w, s.ecc_corrected);
  write(w, s.ecc_uncorrected);
  write(w, s.rows);
  write(w, s.links);
  write(w, s.link_errors);
}
void read(Reader& r, health::Signs& s) {
  read(r, s.sm_clock_mhz);
  read(r, s.memory_clock_mhz);
  read(r, s.throttle);
  read(r, s.ecc_corrected);
  read(r, s.ecc_uncorrected);
  read(r, s.rows);
  read(r, s.links);
  read(r, s.link_errors);
}

void write(Writer& w, const health::DeviceHealth& d) {
  w.number(static_cast<std::uint8_t>(d.level));
  w.text(d.device);
  w.text(d.message);
  w.number(static_cast<std::uint32_t>(d.problems.size()));
  for (const std::string& problem : d.problems) w.text(problem);
  w.number(d.utilisation_percent);
  w.number(d.temperature_celsius);
  w.number(d.power_watts);
  w.number(d.memory_used);
  w.number(d.memory_total);
  w.number(d.memory_allocated);
  w.number(d.memory_fragmented);
  write(w, d.signs);
  w.numbers(d.xids);
}
void read(Reader& r, health::DeviceHealth& d) {
  constexpr std::size_t kSmallestText = 4;
  d.level = r.choice(health::Level::kFatal);
  d.device = r.text();
  d.message = r.text();
  d.problems.resize(r.count(kSmallestText));
  for (std::string& problem : d.problems) problem = r.text();
  d.utilisation_percent = r.number<std::uint32_t>();
  d.temperature_celsius = r.number<std::uint32_t>();
  d.power_watts = r.number<std::uint32_t>();
  d.memory_used = r.number<std::uint64_t>();
  d.memory_total = r.number<std::uint64_t>();
  d.memory_allocated = r.number<std::uint64_t>();
  d.memory_fragmented = r.number<std::uint64_t>();
  read(r, d.signs);
  d.xids = r.numbers<std::uint64_t>();
}

void write(Writer& w, const Progress& m) {
  w.number(static_cast<std::uint32_t>(m.ranks.size()));
  for (const RankState& rank : m.ranks) {
    w.number(static_cast<std::int32_t>(rank.rank));
    w.number(static_cast<std::uint8_t>(rank.phase));
    w.number(rank.loaded_bytes);
    w.number(rank.total_bytes);
    w.text(rank.error);
    w.text(rank.reason);
    w.number(static_cast<std::int32_t>(rank.kv_room));
    write(w, rank.device);
  }
}
void read(Reader& r, Progress& m) {
  constexpr std::size_t kSigns = 8;  // nothing of them is there
  constexpr std::size_t kDevice = 1 + 4 + 4 + 4 + 3 * 4 + 4 * 8 + kSigns + 4;
  constexpr std::size_t kSmallest = 4 + 1 + 8 + 8 + 4 + 4 + 4 + kDevice;
  m.ranks.resize(r.count(kSmallest));
  for (RankState& rank : m.ranks) {
    rank.rank = r.number<std::int32_t>();
    rank.phase = r.choice(Phase::kFailed);
    rank.loaded_bytes = r.number<std::uint64_t>();
    rank.total_bytes = r.number<std::uint64_t>();
    rank.error = r.text();
    rank.reason = r.text();
    rank.kv_room = r.number<std::int32_t>();
    read(r, rank.device);
  }
}

void write(Writer& w, const Start& m) {
  w.number(m.epoch);
  w.number(m.kv_blocks);
}
void read(Reader& r, Start& m) {
  m.epoch = r.number<std::uint64_t>();
  m.kv_blocks = r.number<std::int32_t>();
}

void write(Writer& w, const StoreValue& m) {
  w.number(m.epoch);
  w.text(m.key);
  w.text(m.value);
}
void read(Reader& r, StoreValue& m) {
  m.epoch = r.number<std::uint64_t>();
  m.key = r.text();
  m.value = r.text();
}

void write(Writer& w, const Joined& m) {
  w.number(m.epoch);
}
void read(Reader& r, Joined& m) {
  m.epoch = r.number<std::uint64_t>();
}

void write(Writer& w, const RunBatch& m) {
  w.number(m.epoch);
  w.number(m.batch.id);
  w.number(static_cast<std::uint32_t>(m.batch.rows.size()));
  for (const engine::Row& row : m.batch.rows) {
    w.number(row.sequence);
    w.number(row.start);
    w.numbers(row.tokens);
    w.numbers(row.block_table);
    w.number(row.logits);
    w.number(row.choices);
    w.number(row.propose);
    w.number(row.adapter);
    w.number(row.rank);
  }
}
void read(Reader& r, RunBatch& m) {
  constexpr std::size_t kSmallest = 8 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4;
  m.epoch = r.number<std::uint64_t>();
  m.batch.id = r.number<engine::StepId>();
  m.batch.rows.resize(r.count(kSmallest));
  for (engine::Row& row : m.batch.rows) {
    row.sequence = r.number<engine::SequenceId>();
    row.start = r.number<std::int32_t>();
    row.tokens = r.numbers<engine::TokenId>();
    row.block_table = r.numbers<engine::BlockId>();
    row.logits = r.number<std::int32_t>();
    row.choices = r.number<std::int32_t>();
    row.propose = r.number<std::int32_t>();
    row.adapter = r.number<engine::AdapterId>();
    row.rank = r.number<std::int32_t>();
  }
}

void write(Writer& w, const Broken& m) {
  w.number(m.epoch);
  w.number(static_cast<std::uint8_t>(m.kind));
  w.text(m.message);
}
void read(Reader& r, Broken& m) {
  m.epoch = r.number<std::uint64_t>();
  m.kind = r.choice(ErrorKind::kInternal);
  m.message = r.text();
}

void write(Writer& w, const Abort& m) {
  w.number(m.epoch);
}
void read(Reader& r, Abort& m) {
  m.epoch = r.number<std::uint64_t>();
}

void write(Writer& w, const Condemned& m) {
  w.text(m.message);
}
void read(Reader& r, Condemned& m) {
  m.message = r.text();
}

void write(Writer& w, const Sleep& m) {
  w.number(static_cast<std::uint8_t>(m.rest));
}
void read(Reader& r, Sleep& m) {
  m.rest = r.choice(Rest::kAsleep);
}

void write(Writer& /*w*/, const Heartbeat& /*m*/) {}
void read(Reader& /*r*/, Heartbeat& /*m*/) {}

void write(Writer& w, const WantAdapters& m) {
  w.number(m.version);
  w.number(static_cast<std::uint32_t>(m.adapters.size()));
  for (const SharedAdapter& adapter : m.adapters) {
    w.number(adapter.id);
    w.text(adapter.name);
    w.text(adapter.path);
    w.text(adapter.digest);
  }
}
void read(Reader& r, WantAdapters& m) {
  constexpr std::size_t kSmallest = 4 + 4 + 4 + 4;
  m.version = r.number<std::uint64_t>();
  m.adapters.resize(r.count(kSmallest));
  for (SharedAdapter& adapter : m.adapters) {
    adapter.id = r.number<engine::AdapterId>();
    adapter.name = r.text();
    adapter.path = r.text();
    adapter.digest = r.text();
  }
}

void write(Writer& w, const HaveAdapters& m) {
  w.number(m.version);
  w.number(static_cast<std::uint32_t>(m.failures.size()));
  for (const AdapterFailure& failure : m.failures) {
    w.number(failure.id);
    w.text(failure.message);
  }
}
void read(Reader& r, HaveAdapters& m) {
  constexpr std::size_t kSmallest = 4 + 4;
  m.version = r.number<std::uint64_t>();
  m.failures.resize(r.count(kSmallest));
  for (AdapterFailure& failure : m.failures) {
    failure.id = r.number<engine::AdapterId>();
    failure.message = r.text();
  }
}

// The alternative with the given number, read from `r`.
template <std::size_t I = 0>
bool read_type(std::size_t type, Reader& r, Message& out) {
  if constexpr (I == std::variant_size_v<Message>) {
    return false;
  } else {
    if (type != I) {
      return read_type<I + 1>(type, r, out);
    }
    read(r, out.emplace<I>());
    return true;
  }
}

std::string hmac(std::string_view token, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  // An empty key is allowed by HMAC, but OpenSSL takes a null pointer for "keep the last key".
  const char* key = token.empty() ? "" : token.data();
  HMAC(EVP_sha256(), key, static_cast<int>(token.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

std::string as_text(std::vector<std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<std::byte> encode(const Message& message) {
  Writer w;
  w.number(std::uint32_t{0});
  w.number(kWireVersion);
  w.number(static_cast<std::uint8_t>(message.index()));
  std::visit([&w](const auto& m) { write(w, m); }, message);
  std::vector<std::byte> frame = w.take();
  const auto length = static_cast<std::uint32_t>(frame.size() - sizeof(std::uint32_t));
  std::memcpy(frame.data(), &length, sizeof(length));
  return frame;
}

Result<Message> decode(std::span<const std::byte> body) {
  Reader r(body);
  if (const auto version = r.number<std::uint8_t>(); version != kWireVersion) {
    return fail(ErrorKind::kInvalid, "a message of version " + std::to_string(version) +
                                         ", this program speaks version " +
                                         std::to_string(kWireVersion));
  }
  Message message;
  const auto type = r.number<std::uint8_t>();
  if (!read_type(type, r, message) || !r.ok() || !r.at_end()) {
    return fail(ErrorKind::kInvalid, "a malformed message of type " + std::to_string(type));
  }
  return message;
}

std::string hello_proof(std::string_view token, std::string_view leader_nonce, const Hello& hello) {
  Hello unproved = hello;
  unproved.proof.clear();
  Writer w;
  w.text("hello");
  w.text(leader_nonce);
  write(w, unproved);
  return hmac(token, as_text(w.take()));
}

std::string welcome_proof(std::string_view token, std::string_view leader_nonce,
                          std::string_view follower_nonce) {
  Writer w;
  w.text("welcome");
  w.text(leader_nonce);
  w.text(follower_nonce);
  return hmac(token, as_text(w.take()));
}

bool same_proof(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace dsm::group
