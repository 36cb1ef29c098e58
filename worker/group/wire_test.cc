// Messages as bytes: what is sent comes out the same, and no bytes do harm.
#include "worker/group/wire.h"

#include <gtest/gtest.h>

#include <random>

namespace dsm::group {
namespace {

std::vector<Message> examples() {
  RunBatch run{.epoch = 3, .batch = {}};
  run.batch.id = 77;
  for (int i = 0; i < 3; ++i) {
    engine::Row row;
    row.sequence = static_cast<engine::SequenceId>(1000 + i);
    row.start = i * 64;
    row.tokens = {1, 2, 30000 + i};
    row.block_table = {i, 5};
    row.logits = i;
    row.choices = i / 2;
    row.propose = 3 - i;
    row.adapter = 2 * i;
    row.rank = i;
    run.batch.rows.push_back(row);
  }
  return {Challenge{.nonce = "abc"},
          Hello{.pod_index = 1,
                .tensor_parallel = 4,
                .ranks_per_pod = 2,
                .highest_epoch = 9,
                .revision = "r1",
                .model_digest = "d",
                .nonce = "n",
                .proof = std::string("\0\xff", 2)},
          Welcome{.proof = "p"},
          Refused{.message = "no"},
          Progress{.ranks = {{.rank = 2,
                              .phase = Phase::kFailed,
                              .loaded_bytes = 5,
                              .total_bytes = 10,
                              .error = "disk",
                              .reason = "LoadFailed",
                              .kv_room = 12,
                              .device = {.level = health::Level::kDegraded,
                                         .device = "GPU 3",
                                         .message = "hot",
                                         .problems = {"RowRemapPending", "Hot"},
                                         .utilisation_percent = 87,
                                         .temperature_celsius = 91,
                                         .power_watts = 700,
                                         .memory_used = 1ULL << 36,
                                         .memory_total = 1ULL << 37,
                                         .memory_allocated = 1ULL << 35,
                                         .memory_fragmented = 1ULL << 20,
                                         .signs = {.sm_clock_mhz = 1980,
                                                   .throttle = 0x20,
                                                   .ecc_corrected = 7,
                                                   .rows = {{.corrected = 1, .pending = true}},
                                                   .links = 17},
                                         .xids = {63, 74}}}}},
          Start{.epoch = 4, .kv_blocks = 50},
          StoreValue{.epoch = 4, .key = "k", .value = std::string(200, 'v')},
          Joined{.epoch = 4},
          run,
          Broken{.epoch = 4, .kind = ErrorKind::kInternal, .message = "m"},
          Abort{.epoch = 4},
          Heartbeat{},
          WantAdapters{.version = 3,
                       .adapters = {{.id = 2, .name = "sql", .path = "/a/sql", .digest = "d"},
                                    {.id = 5, .name = "law", .path = "/a/law", .digest = "e"}}},
          HaveAdapters{.version = 3, .failures = {{.id = 5, .message = "no such folder"}}},
          Condemned{.message = "wrong"},
          Sleep{.rest = Rest::kAsleep}};
}

std::span<const std::byte> body(const std::vector<std::byte>& frame) {
  return std::span(frame).subspan(sizeof(std::uint32_t));
}

TEST(Wire, BringsEveryMessageBackUnchanged) {
  for (const Message& message : examples()) {
    SCOPED_TRACE(message.index());
    const auto back = decode(body(encode(message)));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_TRUE(*back == message);
  }
}

TEST(Wire, RefusesEveryCutAndEveryTail) {
  for (const Message& message : examples()) {
    auto frame = encode(message);
    for (std::size_t size = 0; size < body(frame).size(); ++size) {
      EXPECT_FALSE(decode(body(frame).first(size))) << message.index() << " " << size;
    }
    frame.push_back(std::byte{0});
    EXPECT_FALSE(decode(body(frame)));
  }
}

TEST(Wire, RefusesAnotherVersion) {
  auto frame = encode(Heartbeat{});
  frame[4] = std::byte{kWireVersion + 1};
  const auto back = decode(body(frame));
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().kind, ErrorKind::kInvalid);
}

// Counts that promise more than is there must not make room for it.
TEST(Wire, SurvivesAnyBytes) {
  std::mt19937 random(1);
  const auto originals = examples();
  int accepted = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::vector<std::byte> bytes;
    if (round % 4 == 0) {
      bytes.resize(random() % 64);
      for (std::byte& b : bytes) {
        b = static_cast<std::byte>(random());
      }
      if (bytes.size() >= 2) {
        bytes[0] = std::byte{kWireVersion};
        bytes[1] = static_cast<std::byte>(random() % 15);
      }
    } else {
      const auto frame = encode(originals[random() % originals.size()]);
      bytes.assign(frame.begin() + 4, frame.end());
      const std::size_t fields = bytes.size() - 2;  // after version and type
      for (std::size_t flips = 1 + random() % 4; fields > 0 && flips > 0; --flips) {
        bytes[2 + random() % fields] = static_cast<std::byte>(random());
      }
    }
    const auto message = decode(bytes);
    if (message) {
      ++accepted;
      // Whatever was accepted is a message: it survives the way out and back.
      const auto again = decode(body(encode(*message)));
      ASSERT_TRUE(again);
      ASSERT_EQ(again->index(), message->index());
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(Wire, ProofsDependOnEverythingThatIsProved) {
  Hello hello{.pod_index = 1,
              .tensor_parallel = 2,
              .ranks_per_pod = 1,
              .highest_epoch = 0,
              .revision = "r",
              .model_digest = "d",
              .nonce = "n",
              .proof = {}};
  const std::string proof = hello_proof("token", "leader", hello);
  EXPECT_EQ(proof.size(), 32U);
  hello.proof = proof;
  EXPECT_TRUE(same_proof(proof, hello_proof("token", "leader", hello)));
  EXPECT_FALSE(same_proof(proof, hello_proof("other", "leader", hello)));
  EXPECT_FALSE(same_proof(proof, hello_proof("", "leader", hello)));
  EXPECT_FALSE(same_proof(proof, hello_proof("token", "replayed", hello)));
  hello.pod_index = 2;
  EXPECT_FALSE(same_proof(proof, hello_proof("token", "leader", hello)));
  EXPECT_FALSE(same_proof(proof, proof.substr(1)));
  EXPECT_FALSE(same_proof(welcome_proof("token", "a", "b"), welcome_proof("token", "a", "c")));
}

}  // namespace
}  // namespace dsm::group
