// Which tensors a weight in integers is made of, and what is said of those that do not fit.
#include "worker/model/packed_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "kernels/cpu/stored_integers.h"
#include "tests/model/packed_writer.h"

namespace dsm::model {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kOutputs = 24;
constexpr std::int64_t kInputs = 296;

IntegerWeights kind_of(const PackedForm& form) {
  const auto parsed = parse_quantization(quantization_config(form));
  EXPECT_TRUE(parsed) << parsed.error();
  return parsed ? parsed->integers.value_or(IntegerWeights{}) : IntegerWeights{};
}

std::vector<float> some_values(std::int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A checkpoint of one weight, "a.weight".
struct Written {
  explicit Written(const PackedForm& form, std::int64_t outputs = kOutputs,
                   std::int64_t inputs = kInputs)
      : kind(kind_of(form)) {
    tensors["a.weight"] = {"F32", {outputs, inputs}, ""};
    weights = pack_weight(tensors, "a.weight", some_values(outputs * inputs), form);
  }
  Checkpoint open() const {
    dir.write("model.safetensors", safetensors_bytes(tensors));
    auto checkpoint = Checkpoint::open(dir.path());
    if (!checkpoint) throw std::runtime_error(checkpoint.error().message);
    return std::move(*checkpoint);
  }
  std::string error(std::int64_t outputs = kOutputs, std::int64_t inputs = kInputs) const {
    const Checkpoint checkpoint = open();
    const auto found = packed_weight(checkpoint, kind, "a.weight", outputs, inputs);
    if (!found) return found.error().message;
    const Status checked = check_values(checkpoint, *found);
    return checked ? "" : checked.error().message;
  }

  TestDir dir;
  IntegerWeights kind;
  TestTensors tensors;
  std::vector<float> weights;
};

void expect_exact(const PackedForm& form) {
  SCOPED_TRACE(form.name);
  const Written written(form);
  const Checkpoint checkpoint = written.open();
  ASSERT_TRUE(has_packed(checkpoint, written.kind, "a.weight"));
  EXPECT_FALSE(has_packed(checkpoint, written.kind, "b.weight"));
  const auto found = packed_weight(checkpoint, written.kind, "a.weight", kOutputs, kInputs);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_TRUE(check_values(checkpoint, *found));
  EXPECT_GT(found->checked_bytes(), 0);
  EXPECT_TRUE(kernels::stored_by_blocks(found->piece));
  // Not to be kept in integers, so it becomes FP32: each value as it is.
  std::vector<float> packed(kernels::packed_bytes(kernels::DType::kF32, kOutputs, kInputs) / 4);
  const auto matrix = kernels::pack({&found->piece, 1}, packed.data());
  ASSERT_EQ(matrix.dtype, kernels::DType::kF32);
  for (std::int64_t j = 0; j < kOutputs; ++j) {
    for (std::int64_t i = 0; i < kInputs; ++i) {
      ASSERT_EQ(packed[static_cast<std::size_t>(i * kernels::kPanel + j)],
                written.weights[static_cast<std::size_t>(j * kInputs + i)])
          << j << ", " << i;
    }
  }
}

TEST(PackedWeight, IsEachIntegerTimesItsScaleToTheBit) {
  for (const PackedForm& form : kPackedForms) expect_exact(form);
  for (const PackedForm& form : kOtherZeros) expect_exact(form);
}

TEST(PackedWeight, OfCompressedTensorsMayHaveAWordThatIsNotFull) {
  const Written written(kPackedForms[0], 5, 133);
  EXPECT_EQ(written.error(5, 133), "");
}

TEST(PackedWeight, OfGptqFillsItsWords) {
  const Written written(kPackedForms[3]);
  EXPECT_THAT(written.error(kOutputs, 133),
              HasSubstr("tensor a.qweight: GPTQ's words hold 8 numbers, which do not divide 24 "
                        "outputs or 133 inputs"));
}

TEST(PackedWeight, OfAnotherShapeIsRefused) {
  for (const PackedForm& form : kPackedForms) {
    const Written written(form);
    EXPECT_THAT(written.error(kOutputs, kInputs + 8), HasSubstr("config.json needs ["))
        << form.name;
    EXPECT_THAT(written.error(kOutputs + 8, kInputs), HasSubstr("config.json needs ["))
        << form.name;
  }
  // 296 inputs and 290 have as many words and groups.
  const Written written(kPackedForms[0]);
  EXPECT_THAT(written.error(kOutputs, 290),
              HasSubstr("tensor a.weight_shape says [24, 296], config.json needs [24, 290]"));
}

TEST(PackedWeight, OfAwqFillsItsWordsWithOutputs) {
  const Written written(kPackedForms[8], kOutputs, 133);
  EXPECT_EQ(written.error(kOutputs, 133), "");
  EXPECT_THAT(written.error(28, 133), HasSubstr("tensor a.qweight: AWQ's words hold 8 numbers, "
                                                "which do not divide 28 outputs"));
}

TEST(PackedWeight, WithZeroPointsHasThemInATensorOfItsOwn) {
  for (const int form : {6, 7, 8}) {
    Written written(kPackedForms[form]);
    const char* zeros = form == 6 ? "a.weight_zero_point" : "a.qzeros";
    written.tensors.at(zeros).dtype = "F32";
    EXPECT_THAT(written.error(),
                HasSubstr(std::string("tensor ") + zeros + " has dtype F32, not I32"));
    written.tensors.erase(zeros);
    EXPECT_THAT(written.error(), HasSubstr(std::string("has no tensor ") + zeros));
  }
}

// Its readers do not agree on it.
TEST(PackedWeight, OfTheOlderGptqHasNoZeroPointThatWouldBeMinusOne) {
  Written written(kPackedForms[7]);
  written.tensors.at("a.qzeros").bytes.at(kOutputs / 2 + 3) = '\x5f';
  EXPECT_THAT(
      written.error(),
      HasSubstr("tensor a.qzeros has 15 for output 6 of group 1: as a zero point less one "
                "that is 0 to some and 16 to others; take a checkpoint in the format gptq_v2"));
  written.tensors.at("a.qzeros").bytes.at(kOutputs / 2 + 3) = '\xf5';
  EXPECT_THAT(written.error(), HasSubstr("has 15 for output 7 of group 1"));
  PackedForm v2 = kPackedForms[7];
  v2.v2 = true;
  written.kind = kind_of(v2);
  EXPECT_EQ(written.error(), "");
}

TEST(PackedWeight, WhoseInputsAreInOrderMaySaySo) {
  Written written(kPackedForms[0]);
  std::string order;
  for (std::int64_t i = 0; i < kInputs; ++i) {
    const std::int64_t group = i / 128;
    order.append(reinterpret_cast<const char*>(&group), sizeof group);
  }
  written.tensors["a.weight_g_idx"] = {"I64", {kInputs}, order};
  EXPECT_EQ(written.error(), "");
  order[8 * 200] = 2;
  written.tensors["a.weight_g_idx"].bytes = order;
  EXPECT_THAT(written.error(), HasSubstr("a.weight_g_idx puts input 200 into group 2, not 1"));
}

TEST(PackedWeight, OfTheOtherGptqFormatHasZerosThatAreOneOff) {
  PackedForm form = kPackedForms[3];
  Written written(form);
  form.v2 = true;
  written.kind = kind_of(form);
  EXPECT_THAT(
      written.error(),
      HasSubstr("tensor a.qzeros has 7 for output 0 of group 0, symmetric integers have 8"));
}

}  // namespace
}  // namespace dsm::model
