#include "worker/group/wire.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstring>
#include <utility>

#include "worker/group/wire_bytes.h"
#include "worker/group/wire_health.h"

namespace dsm::group {
namespace {

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
  constexpr std::size_t kSmallest = 4 + 1 + 8 + 8 + 4 + 4 + 4 + kSmallestDeviceHealth;
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
