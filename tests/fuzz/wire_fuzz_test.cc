// Bytes from a peer that may be anybody: a frame is decoded to what encode() would write again, or
// refused.
#include <gtest/gtest.h>

#include "tests/fuzz/mutate.h"
#include "worker/group/wire.h"

namespace dsm::group {
namespace {

using fuzz::Random;

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::vector<Message> some_messages() {
  engine::Row row;
  row.sequence = 7;
  row.start = 64;
  row.tokens = {1, 2, 3};
  row.block_table = {4, 5};
  row.logits = 2;
  row.choices = 1;
  RunBatch run;
  run.epoch = 3;
  run.batch.id = 9;
  run.batch.rows = {row, row};
  Progress progress;
  progress.ranks = {RankState{
      .rank = 1, .phase = Phase::kLoading, .loaded_bytes = 5, .total_bytes = 9, .error = "e"}};
  Hello hello;
  hello.pod_index = 1;
  hello.tensor_parallel = 2;
  hello.ranks_per_pod = 1;
  hello.revision = "5f2c";
  hello.nonce = "nonce";
  hello.proof = "proof";
  return {Challenge{"nonce"},
          hello,
          Welcome{"proof"},
          Refused{"why"},
          progress,
          Start{4},
          StoreValue{4, "key", "value"},
          Joined{4},
          run,
          Broken{4, ErrorKind::kTransient, "lost"},
          Abort{4},
          Heartbeat{}};
}

TEST(WireFuzz, EveryMessageIsReadBackAsItWasWritten) {
  for (const Message& message : some_messages()) {
    std::vector<std::byte> frame = encode(message);
    ASSERT_GE(frame.size(), 6U);
    Result<Message> back = decode(std::span<const std::byte>(frame).subspan(4));
    ASSERT_TRUE(back.has_value()) << back.error().message;
    EXPECT_EQ(*back, message);
  }
}

TEST(WireFuzz, ABrokenFrameIsRefusedOrIsAnotherMessage) {
  Random random(1);
  std::vector<Message> messages = some_messages();
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 30000; ++i) {
    std::string body = text_of(encode(messages[random.below(messages.size())])).substr(4);
    body = fuzz::mutate(std::move(body), random);
    Result<Message> message = decode(bytes_of(body));
    if (!message) {
      ++refused;
      EXPECT_EQ(message.error().kind, ErrorKind::kInvalid);
      continue;
    }
    ++accepted;
    // What is accepted has one form only, which is the one that came.
    EXPECT_EQ(text_of(encode(*message)).substr(4), body);
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 1000);
}

TEST(WireFuzz, ALengthThatIsNotThereTakesNoMemory) {
  // A RunBatch that promises four thousand million rows in a few bytes.
  std::string body = text_of(encode(some_messages()[8])).substr(4);
  for (std::size_t at = 2; at + 4 <= body.size(); ++at) {
    std::string huge = body;
    huge.replace(at, 4, "\xFF\xFF\xFF\x7F");
    Result<Message> message = decode(bytes_of(huge));  // the sanitizer limits one allocation
    EXPECT_TRUE(message.has_value() || message.error().kind == ErrorKind::kInvalid);
  }
}

}  // namespace
}  // namespace dsm::group
