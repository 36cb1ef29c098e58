#include "worker/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

namespace dsm::model {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// A model directory of its own per test, removed at the end.
class Safetensors : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() /
           ("dsm-safetensors-" + std::to_string(std::random_device{}()));
    std::filesystem::create_directory(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
  }
  static std::string file(const std::string& header, const std::string& data,
                          std::int64_t length = -1) {
    std::uint64_t size = length < 0 ? header.size() : static_cast<std::uint64_t>(length);
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    return bytes + header + data;
  }
  std::string open_error(const std::string& bytes) {
    write("model.safetensors", bytes);
    const auto checkpoint = Checkpoint::open(dir_);
    return checkpoint ? "opened" : checkpoint.error().message;
  }

  std::filesystem::path dir_;
};

TEST_F(Safetensors, ReadsATensor) {
  const float values[] = {1.5F, -2.0F};
  write(
      "model.safetensors",
      file(
          R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})",
          std::string(reinterpret_cast<const char*>(values), 8)));
  const auto checkpoint = Checkpoint::open(dir_);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto view = checkpoint->get("w", {1, 2});
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(std::memcmp(view->bytes.data(), values, 8), 0);
  EXPECT_THAT(checkpoint->get("w", {2, 1}).error().message,
              HasSubstr("tensor w has shape [1, 2], config.json needs [2, 1]"));
  EXPECT_THAT(checkpoint->get("v", {2}).error().message, HasSubstr("has no tensor v"));
}

TEST_F(Safetensors, ReadsTheDefaultModel) {
  const auto checkpoint = Checkpoint::open("models/deepseek-tiny");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto view = checkpoint->get("lm_head.weight", {1536, 256});
  ASSERT_TRUE(view);
  EXPECT_EQ(view->dtype, kernels::DType::kBF16);
}

TEST_F(Safetensors, FindsTensorsInTheShardsOfAnIndex) {
  const std::string one(4, 'a');
  const std::string two(4, 'b');
  write("a.safetensors", file(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", one));
  write("b.safetensors", file(R"({"y":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", two));
  write("model.safetensors.index.json",
        R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  const auto checkpoint = Checkpoint::open(dir_);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->get("y", {2})->bytes[0], std::byte{'b'});

  EXPECT_THAT(checkpoint->file_names(),
              ElementsAre("a.safetensors", "b.safetensors", "model.safetensors.index.json"));
}

TEST_F(Safetensors, IndexAndShardsMustNameTheSameTensors) {
  const std::string bytes(4, 'a');
  write("a.safetensors", file(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", bytes));
  write("b.safetensors", file(R"({"y":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", bytes));
  const auto error = [&](const std::string& map) {
    write("model.safetensors.index.json", "{\"weight_map\":" + map + "}");
    const auto checkpoint = Checkpoint::open(dir_);
    return checkpoint ? "opened" : checkpoint.error().message;
  };
  EXPECT_EQ(error(R"({"x":"a.safetensors","y":"b.safetensors"})"), "opened");
  EXPECT_THAT(error(R"({"x":"b.safetensors"})"),
              HasSubstr("b.safetensors: does not hold tensor x that the index puts there"));
  EXPECT_THAT(error(R"({"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"})"),
              HasSubstr("b.safetensors: does not hold tensor z"));
  EXPECT_THAT(error(R"({"x":"../a.safetensors"})"), HasSubstr("is not in a file beside it"));
  EXPECT_THAT(error(R"({"x":"c.safetensors"})"), HasSubstr("c.safetensors: cannot be opened"));
  EXPECT_THAT(error("[]"), HasSubstr("has no weight_map"));
  write("b.safetensors", file(R"({"x":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},)"
                              R"("y":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]}})",
                              bytes));
  EXPECT_THAT(error(R"({"y":"b.safetensors"})"),
              HasSubstr("b.safetensors: holds tensor x that the index does not name"));
  EXPECT_THAT(error(R"({"x":"a.safetensors","y":"b.safetensors"})"),
              AllOf(HasSubstr("b.safetensors: holds tensor x, which"), HasSubstr("a.safetensors")));
}

// As a download cache lays a snapshot out: the folder and its files are links.
TEST_F(Safetensors, LinksAreFollowed) {
  namespace fs = std::filesystem;
  fs::create_directories(dir_ / "blobs");
  fs::create_directories(dir_ / "snapshots/5f2c");
  write("blobs/0a1b",
        file(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string(4, 'a')));
  write("blobs/2c3d", R"({"weight_map":{"x":"model-00001-of-00001.safetensors"}})");
  fs::create_symlink("../../blobs/0a1b", dir_ / "snapshots/5f2c/model-00001-of-00001.safetensors");
  fs::create_symlink("../../blobs/2c3d", dir_ / "snapshots/5f2c/model.safetensors.index.json");
  fs::create_directory_symlink("snapshots/5f2c", dir_ / "current");
  const auto checkpoint = Checkpoint::open(dir_ / "current");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_TRUE(checkpoint->get("x", {1}));
  fs::remove(dir_ / "blobs/0a1b");
  EXPECT_THAT(Checkpoint::open(dir_ / "current").error().message,
              HasSubstr("model-00001-of-00001.safetensors: cannot be opened"));
}

TEST_F(Safetensors, SaysWhichFileIsMissing) {
  const auto checkpoint = Checkpoint::open(dir_);
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().kind, ErrorKind::kNotFound);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("model.safetensors: cannot be opened"));
}

TEST_F(Safetensors, RefusesHeadersThatDoNotFitTheFile) {
  EXPECT_THAT(open_error("1234"), HasSubstr("has 4 bytes"));
  EXPECT_THAT(open_error(file("{}", "", 3)), HasSubstr("byte 0: header length 3 does not fit"));
  EXPECT_THAT(open_error(std::string(8, '\xff')), HasSubstr("byte 0: header length"));
  EXPECT_THAT(open_error(file("[]", "")), HasSubstr("the header is not an object"));
  // The value is missing at the header's ninth byte; eight bytes of length come before it.
  EXPECT_THAT(open_error(file(R"({"a": 1,})", "")), HasSubstr("byte 16: the header is not JSON"));
}

TEST_F(Safetensors, RefusesTensorsThatDoNotFitTheirBytes) {
  const auto tensor = [](const std::string& dtype, const std::string& shape,
                         const std::string& at) {
    return file(
        R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + at + "}}",
        std::string(8, 'x'));
  };
  EXPECT_EQ(open_error(tensor("F32", "[2]", "[0,8]")), "opened");
  EXPECT_THAT(open_error(tensor("F32", "[2]", "[0,9]")),
              HasSubstr("the file holds 8 bytes of data"));
  EXPECT_THAT(open_error(tensor("F32", "[2]", "[8,0]")), HasSubstr("data_offsets [8,0]"));
  EXPECT_THAT(open_error(tensor("F32", "[2]", "[-8,0]")), HasSubstr("data_offsets [-8,0]"));
  EXPECT_THAT(open_error(tensor("F32", "[3]", "[0,8]")),
              HasSubstr("has 8 bytes, its shape [3] needs 12"));
  EXPECT_THAT(open_error(tensor("F32", "[4294967296,4294967296]", "[0,8]")),
              HasSubstr("impossible shape"));
  EXPECT_THAT(open_error(tensor("I64", "[2]", "[0,8]")), HasSubstr("needs 16"));
  EXPECT_THAT(open_error(file(R"({"w":{"dtype":"F32"}})", "")), HasSubstr("tensor w"));
}

TEST_F(Safetensors, AFileThatWasCutShortSaysWhere) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const auto whole = file(header, std::string(8, 'x'));
  EXPECT_THAT(open_error(whole.substr(0, whole.size() - 3)),
              HasSubstr("ends at byte " + std::to_string(whole.size() - 3) + ": it is cut short"));
  EXPECT_THAT(open_error(whole + "abc"),
              HasSubstr("byte " + std::to_string(whole.size()) + ": the last tensor ends here"));
}

TEST_F(Safetensors, EveryByteBelongsToOneTensor) {
  const auto two = [](const std::string& first, const std::string& second) {
    const auto entry = [](const std::string& at) {
      return R"({"dtype":"U8","shape":[4],"data_offsets":)" + at + "}";
    };
    return file("{\"a\":" + entry(first) + ",\"b\":" + entry(second) + "}", std::string(8, 'x'));
  };
  EXPECT_EQ(open_error(two("[0,4]", "[4,8]")), "opened");
  EXPECT_EQ(open_error(two("[4,8]", "[0,4]")), "opened");
  const auto start = two("[0,4]", "[4,8]").size() - 8;
  EXPECT_THAT(open_error(two("[0,4]", "[2,6]")), HasSubstr("byte " + std::to_string(start + 2) +
                                                           ": tensor b begins inside of tensor a"));
  EXPECT_THAT(open_error(two("[1,5]", "[4,8]")),
              HasSubstr("byte " + std::to_string(start) + ": no tensor until tensor a"));
  EXPECT_THAT(open_error(file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                              R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                              "1234")),
              HasSubstr("the header has tensor a twice"));
}

TEST_F(Safetensors, ATypeThatNothingComputesWithIsRefusedWhenItIsAskedFor) {
  write("model.safetensors", file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                                  R"("counter":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                                  R"("odd":{"dtype":"F4","shape":[2],"data_offsets":[12,13]}})",
                                  std::string(13, 'x')));
  const auto checkpoint = Checkpoint::open(dir_);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_TRUE(checkpoint->get("a", {1}));
  EXPECT_THAT(checkpoint->get("counter", {1}).error().message,
              HasSubstr("tensor counter has dtype I64, supported are"));
  EXPECT_THAT(checkpoint->get("odd", {2}).error().message, HasSubstr("dtype F4"));
}

}  // namespace
}  // namespace dsm::model
