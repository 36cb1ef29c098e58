#include "worker/model/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/model/checkpoint_writer.h"
#include "worker/model/rank_model.h"

namespace dsm::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;

namespace fs = std::filesystem;

// A folder with files and, if asked for, their manifest.
class ManifestTest : public testing::Test {
 protected:
  void add(const std::string& name, const std::string& bytes) {
    dir_.write(name, bytes);
    sums_ += sha256_hex(bytes) + "  " + name + "\n";
  }
  Status verify(const std::vector<std::string>& used = {}, int threads = 2) {
    const auto plan = Verification::plan(dir_.path(), used, 0, 1);
    if (!plan) return std::unexpected(plan.error());
    return plan->run(threads, [](std::int64_t) {});
  }
  std::string error(const std::vector<std::string>& used = {}) {
    const auto status = verify(used);
    return status ? "verified" : status.error().message;
  }

  TestDir dir_;
  std::string sums_;
};

TEST(Manifest, ReadsWhatSha256sumWrites) {
  const std::string hash(64, 'a');
  const auto manifest = parse_manifest(hash + "  model.safetensors\n" + std::string(64, 'B') +
                                           " *./sub/config.json\r\n\n" + hash + "  SHA256SUMS",
                                       "dir/SHA256SUMS");
  ASSERT_TRUE(manifest) << manifest.error().message;
  ASSERT_EQ(manifest->entries.size(), 2U);
  EXPECT_EQ(manifest->entries[0].name, "model.safetensors");
  EXPECT_EQ(manifest->entries[0].sha256, hash);
  EXPECT_EQ(manifest->entries[1].name, "sub/config.json");
  EXPECT_EQ(manifest->entries[1].sha256, std::string(64, 'b'));
}

TEST(Manifest, RefusesOtherLinesByTheirNumber) {
  const std::string good = std::string(64, 'a') + "  x\n";
  const auto error = [&](const std::string& line) -> std::string {
    const auto manifest = parse_manifest(good + line, "SHA256SUMS");
    return manifest ? "read" : manifest.error().message;
  };
  EXPECT_EQ(error(""), "read");
  EXPECT_THAT(error("abc  y"), HasSubstr("SHA256SUMS: line 2: is not a SHA-256"));
  EXPECT_THAT(error(std::string(64, 'a') + " y"), HasSubstr("line 2: is not a SHA-256"));
  EXPECT_THAT(error(std::string(63, 'a') + "g  y"), HasSubstr("64 hexadecimal digits"));
  EXPECT_THAT(error("\\" + std::string(64, 'a') + "  y"), HasSubstr("line 2"));
  EXPECT_THAT(error(std::string(64, 'a') + "  /etc/passwd"), HasSubstr("outside"));
  EXPECT_THAT(error(std::string(64, 'a') + "  a/../../y"), HasSubstr("outside"));
  EXPECT_THAT(error(std::string(64, 'a') + "  ./x"), HasSubstr("line 2: names x again"));
  EXPECT_THAT(parse_manifest("\n", "SHA256SUMS").error().message, HasSubstr("names no file"));
}

TEST_F(ManifestTest, WithoutAManifestNothingIsCompared) {
  add("config.json", "{}");
  const auto plan = Verification::plan(dir_.path(), {"model.safetensors"}, 0, 1);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->bytes(), 0);
  EXPECT_TRUE(plan->run(2, [](std::int64_t) { ADD_FAILURE(); }));
}

TEST_F(ManifestTest, AFileThatDiffersIsNamedWithBothChecksums) {
  add("model.safetensors", std::string(10'000'000, 'w'));
  add("config.json", "{}");
  dir_.write("SHA256SUMS", sums_);
  EXPECT_EQ(error({"model.safetensors"}), "verified");
  std::string changed(10'000'000, 'w');
  changed[9'999'999] = 'v';
  dir_.write("model.safetensors", changed);
  EXPECT_THAT(error(),
              AllOf(HasSubstr("model.safetensors: has SHA-256 " + sha256_hex(changed)),
                    HasSubstr("SHA256SUMS says " + sha256_hex(std::string(10'000'000, 'w')))));
}

TEST_F(ManifestTest, AListedFileThatIsMissingIsAnError) {
  add("config.json", "{}");
  add("model-00002-of-00002.safetensors", "x");
  dir_.write("model.sha256", sums_);
  EXPECT_EQ(error(), "verified");
  fs::remove(dir_.path() / "model-00002-of-00002.safetensors");
  EXPECT_THAT(error(), HasSubstr("model.sha256: lists model-00002-of-00002.safetensors, which is "
                                 "not there"));
}

TEST_F(ManifestTest, AFileThatIsReadMustBeListed) {
  add("model.safetensors", "x");
  dir_.write("SHA256SUMS", sums_);
  EXPECT_EQ(error({"model.safetensors"}), "verified");
  EXPECT_THAT(error({"other.safetensors"}), HasSubstr("does not list other.safetensors"));
  dir_.write("tokenizer.json", "{}");
  EXPECT_THAT(error({"model.safetensors"}), HasSubstr("does not list tokenizer.json"));
}

TEST_F(ManifestTest, ModelSha256ComesBeforeSha256sums) {
  add("config.json", "{}");
  dir_.write("model.sha256", sums_);
  dir_.write("SHA256SUMS", "broken");
  EXPECT_EQ(error(), "verified");
}

TEST_F(ManifestTest, LinksOfADownloadCacheAreFollowed) {
  add("blob", "weights");
  fs::create_symlink("blob", dir_.path() / "model.safetensors");
  dir_.write("SHA256SUMS", sha256_hex("weights") + "  model.safetensors\n");
  EXPECT_EQ(error({"model.safetensors"}), "verified");
  dir_.write("blob", "changed");
  EXPECT_THAT(error(), HasSubstr("model.safetensors: has SHA-256"));
}

TEST_F(ManifestTest, PartsAreAllOfTheFilesAndOfAboutOneSize) {
  std::int64_t all = 0;
  for (int i = 1; i <= 12; ++i) {
    add("f" + std::to_string(i), std::string(static_cast<std::size_t>(i) * 1000, 'x'));
    all += i * 1000;
  }
  add("empty", "");
  dir_.write("SHA256SUMS", sums_);
  std::int64_t sum = 0;
  for (int part = 0; part < 3; ++part) {
    const auto plan = Verification::plan(dir_.path(), {}, part, 3);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_NEAR(static_cast<double>(plan->bytes()), static_cast<double>(all) / 3, 1000);
    std::int64_t last = 0;
    ASSERT_TRUE(plan->run(4, [&](std::int64_t bytes) {
      EXPECT_GE(bytes, last);
      last = bytes;
    }));
    EXPECT_EQ(last, plan->bytes());
    sum += plan->bytes();
  }
  EXPECT_EQ(sum, all);
}

// The model's own loading: checksums come first, and count as progress.
TEST_F(ManifestTest, ARankLoadsOnlyWhatTheManifestSays) {
  for (const char* name : {"config.json", "model.safetensors"}) {
    const fs::path from = fs::path("models/deepseek-tiny") / name;
    std::ifstream file(from, std::ios::binary);
    add(name, {std::istreambuf_iterator<char>(file), {}});
  }
  dir_.write("SHA256SUMS", sums_);
  const auto config = load_model_config(dir_.path());
  ASSERT_TRUE(config) << config.error().message;
  std::int64_t last = 0;
  std::int64_t total = 0;
  const auto load = [&](RankSpec spec) {
    last = total = 0;
    return RankModel::load(dir_.path(), *config, spec, {.num_blocks = 1}, 1,
                           [&](std::int64_t loaded, std::int64_t of) {
                             EXPECT_GE(loaded, last);
                             EXPECT_LE(loaded, of);
                             EXPECT_TRUE(total == 0 || total == of);
                             last = loaded;
                             total = of;
                           });
  };
  const auto loaded = load({.threads = 2});
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(last, total);
  const auto files = fs::file_size(dir_.path() / "model.safetensors");
  EXPECT_GT(total, static_cast<std::int64_t>(files));

  dir_.write("SHA256SUMS",
             sha256_hex("something else") + "  config.json\n" + sums_.substr(sums_.find('\n') + 1));
  const auto refused = load({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("config.json: has SHA-256"));
}

}  // namespace
}  // namespace dsm::model
