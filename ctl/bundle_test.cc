#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>

#include "base/random.h"
#include "ctl/archive.h"
#include "ctl/redact.h"
#include "ctl/testing/fake_cluster.h"

namespace dsm::ctl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::FakeCluster;
using ::testing::HasSubstr;
using ::testing::Not;

// The files of an archive, read by libarchive.
std::map<std::string, std::string> unpack(const std::string& path) {
  std::map<std::string, std::string> files;
  archive* reader = archive_read_new();
  archive_read_support_filter_gzip(reader);
  archive_read_support_format_tar(reader);
  EXPECT_EQ(archive_read_open_filename(reader, path.c_str(), 65536), ARCHIVE_OK);
  archive_entry* entry = nullptr;
  while (archive_read_next_header(reader, &entry) == ARCHIVE_OK) {
    std::string content(static_cast<std::size_t>(archive_entry_size(entry)), '\0');
    EXPECT_EQ(archive_read_data(reader, content.data(), content.size()),
              static_cast<la_ssize_t>(content.size()));
    files[archive_entry_pathname(entry)] = content;
  }
  archive_read_free(reader);
  return files;
}

class Bundle : public ::testing::Test {
 protected:
  ~Bundle() override {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  Result<int> collect() {
    return run(BundleCommand{.model = "r1", .file = path}, fake.cluster, fake.io);
  }

  FakeCluster fake;
  std::string revision = fake.example.model["status"]["updatedRevision"];
  std::string path = (fs::temp_directory_path() / ("bundle-" + random_hex(8) + ".tar.gz")).string();
};

TEST_F(Bundle, has_objects_logs_and_versions) {
  fake.more["/version"] = kube::testing::json_answer(200, {{"gitVersion", "v1.35.4"}});
  fake.more["/api/v1/namespaces/team-a/pods/r1-" + revision + "-0-1/log"] = {200, {}, "loaded\n"};
  fake.more["/api/v1/namespaces/team-a/events"] = kube::testing::json_answer(
      200, {{"kind", "EventList"},
            {"items",
             {{{"involvedObject", {{"name", "r1"}}}, {"message", "all groups answer"}},
              {{"involvedObject", {{"name", "somebody-else"}}}, {"message", "not ours"}}}}});
  const auto code = collect();
  ASSERT_TRUE(code) << code.error().message;
  auto files = unpack(path);
  EXPECT_THAT(files["r1/status.txt"], HasSubstr("ready 2/2"));
  EXPECT_EQ(json::parse(files["r1/pods.json"])["items"].size(), 4U);
  EXPECT_EQ(files["r1/logs/r1-" + revision + "-0-1.log"], "loaded\n");
  EXPECT_THAT(files["r1/events.json"], HasSubstr("all groups answer"));
  EXPECT_THAT(files["r1/events.json"], Not(HasSubstr("not ours")));
  EXPECT_EQ(json::parse(files["r1/versions.json"])["kubernetes"]["gitVersion"], "v1.35.4");
  // What could not be read is said and is no reason to fail.
  EXPECT_THAT(files["r1/errors.txt"], HasSubstr("the operator's pods"));
  EXPECT_THAT(fake.out.str(), HasSubstr("errors.txt"));
}

TEST_F(Bundle, has_no_secrets) {
  fake.example.model["spec"]["template"]["env"] = {{{"name", "API_KEY"}, {"value", "hunter2"}}};
  fake.example.model["metadata"]["annotations"] = {
      {"kubectl.kubernetes.io/last-applied-configuration", "...hunter2..."}};
  fake.example.pods[0]["spec"]["containers"][0]["env"].push_back(
      {{"name", "API_KEY"}, {"value", "hunter2"}});
  ASSERT_TRUE(collect());
  for (const auto& [name, content] : unpack(path)) {
    EXPECT_THAT(content, Not(HasSubstr("hunter2"))) << name;
    EXPECT_THAT(content, Not(HasSubstr("token-of-r1"))) << name;
  }
  EXPECT_THAT(unpack(path)["r1/model.json"], HasSubstr("API_KEY"));
}

TEST_F(Bundle, is_the_users_alone_and_replaces_nothing) {
  ASSERT_TRUE(collect());
  struct stat status{};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  const auto again = collect();
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message, HasSubstr("is there already"));
}

TEST_F(Bundle, of_a_folder_that_is_not_there_is_refused) {
  path = "/no/such/folder/b.tar.gz";
  EXPECT_THAT(collect().error().message, HasSubstr("/no/such/folder/b.tar.gz cannot be made"));
}

TEST(Redacted, keeps_names_and_takes_values) {
  const json secret = redacted({{"kind", "Secret"},
                                {"metadata", {{"name", "s"}, {"managedFields", {1, 2}}}},
                                {"data", {{"token", "dG9rZW4="}}},
                                {"stringData", {{"other", "x"}}}});
  EXPECT_EQ(secret["data"]["token"], "(redacted)");
  EXPECT_EQ(secret["stringData"]["other"], "(redacted)");
  EXPECT_FALSE(secret["metadata"].contains("managedFields"));
  const json revision = redacted(
      {{"kind", "ControllerRevision"},
       {"data", {{"spec", {{"template", {{"env", {{{"name", "A"}, {"value", "v"}}}}}}}}}}});
  EXPECT_EQ(revision["data"]["spec"]["template"]["env"][0],
            json({{"name", "A"}, {"value", "(redacted)"}}));
}

}  // namespace
}  // namespace dsm::ctl
