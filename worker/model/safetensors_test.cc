#include "worker/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

namespace dsm::model {
namespace {

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

  write("model.safetensors.index.json", R"({"weight_map":{"x":"b.safetensors"}})");
  EXPECT_THAT(Checkpoint::open(dir_).error().message, HasSubstr("does not hold tensor x"));
  write("model.safetensors.index.json", R"({"weight_map":{"x":"../a.safetensors"}})");
  EXPECT_THAT(Checkpoint::open(dir_).error().message, HasSubstr("is not in a file beside it"));
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
  EXPECT_THAT(open_error(tensor("I64", "[1]", "[0,8]")), HasSubstr("dtype I64"));
  EXPECT_THAT(open_error(file(R"({"w":{"dtype":"F32"}})", "")), HasSubstr("tensor w"));
}

}  // namespace
}  // namespace dsm::model
