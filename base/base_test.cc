#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/flags.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/result.h"
#include "base/sha256.h"

namespace dsm {
namespace {

using testing::HasSubstr;

TEST(Result, WrapAddsContextAndKeepsTheKind) {
  Status status = wrap(Error{ErrorKind::kConflict, "taken", 7}, "pod a");
  EXPECT_EQ(status.error().kind, ErrorKind::kConflict);
  EXPECT_EQ(status.error().message, "pod a: taken");
  EXPECT_EQ(status.error().retry_after_s, 7);
}

TEST(Clock, RendersAndReadsKubernetesTimes) {
  const WallTime time = from_rfc3339("2026-01-31T12:00:01.250000Z");
  EXPECT_EQ(to_rfc3339(time), "2026-01-31T12:00:01Z");
  EXPECT_EQ(to_rfc3339_micro(time), "2026-01-31T12:00:01.250000Z");
  EXPECT_EQ(from_rfc3339("soon"), WallTime{});
}

TEST(Clock, ManualClockMovesOnlyWhenAdvanced) {
  ManualClock clock;
  const TimePoint before = clock.now();
  clock.advance(Seconds(5));
  EXPECT_EQ(clock.now() - before, Seconds(5));
}

struct Options {
  std::string model;
  int port = 80;
  bool deterministic = false;
};

Status parse(Options& options, std::vector<const char*> arguments) {
  Flags flags("program", "does a thing");
  flags.add("model", &options.model, "folder");
  flags.add("port", &options.port, "port");
  flags.add("deterministic", &options.deterministic, "same bits");
  arguments.insert(arguments.begin(), "program");
  return flags.parse(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Flags, ReadsBothSpellingsAndBareBooleans) {
  Options options;
  ASSERT_TRUE(parse(options, {"--model=a b", "--port", "8000", "--deterministic"}));
  EXPECT_EQ(options.model, "a b");
  EXPECT_EQ(options.port, 8000);
  EXPECT_TRUE(options.deterministic);
}

TEST(Flags, NamesTheFlagThatIsWrong) {
  Options options;
  EXPECT_THAT(parse(options, {"--port", "many"}).error().message, HasSubstr("--port is 'many'"));
  EXPECT_THAT(parse(options, {"--prot", "1"}).error().message, HasSubstr("unknown flag --prot"));
  EXPECT_THAT(parse(options, {"--model"}).error().message, HasSubstr("--model needs a value"));
  EXPECT_EQ(parse(options, {"--help"}).error().kind, ErrorKind::kCancelled);
}

TEST(Random, Sha256OfNothingIsTheKnownDigest) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  // RFC 4231, test case 2.
  EXPECT_EQ(hmac_sha256_hex("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(random_hex(8).size(), 16U);
}

TEST(Random, Sha256OfPiecesIsThatOfTheWhole) {
  const std::string bytes(100'000, 'x');
  Sha256 sha;
  const auto all = std::as_bytes(std::span(bytes));
  sha.update(all.first(1));
  sha.update(all.subspan(1, 70'000));
  sha.update({});
  sha.update(all.subspan(70'001));
  EXPECT_EQ(sha.finish(), sha256_hex(bytes));
}

TEST(Metrics, ProcessMetricsReadThisProcess) {
  MetricsRegistry registry;
  ProcessMetrics process(registry);
  process.update();
  const std::string text = metrics_text(registry);
  EXPECT_THAT(text, HasSubstr("process_resident_memory_bytes "));
  EXPECT_THAT(text, testing::Not(HasSubstr("process_resident_memory_bytes 0\n")));
}

}  // namespace
}  // namespace dsm
