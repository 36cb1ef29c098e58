// Sparse attention is attention over the whole past where nothing is left out, and something else
// where something is. families_test.cc holds it to the reference.
#include <cstring>

#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_fixture.h"

namespace dsm::model {
namespace {

constexpr const char* kSource = "tests/goldens/families/deepseek_v32";
constexpr std::size_t kTopK = 50;

nlohmann::json config() {
  std::ifstream file(std::string(kSource) + "/config.json");
  auto json = nlohmann::json::parse(file);
  json["num_nextn_predict_layers"] = 1;
  return json;
}

// The source's, with a prediction layer made of its last layer.
TestTensors tensors() {
  auto all = read_safetensors(std::filesystem::path(kSource) / "model.safetensors");
  const std::string last = "model.layers.2.";
  const std::string mtp = "model.layers.3.";
  TestTensors added;
  for (const auto& [name, tensor] : all) {
    if (name.starts_with(last)) added[mtp + name.substr(last.size())] = tensor;
  }
  const TestTensor& norm = all.at("model.norm.weight");
  for (const char* name : {"enorm.weight", "hnorm.weight", "shared_head.norm.weight"}) {
    added[mtp + name] = norm;
  }
  TestTensor join = all.at("lm_head.weight");  // [128, 32], cut to [32, 64]
  join.shape = {32, 64};
  join.bytes.resize(std::size_t{32} * 64 * 2);
  added[mtp + "eh_proj.weight"] = join;
  all.merge(added);
  return all;
}

struct Answer {
  std::vector<float> logits;
  std::vector<engine::TokenId> drafts;
};

Answer run(const nlohmann::json& json) {
  const TestDir dir;
  dir.write("config.json", json.dump());
  dir.write("model.safetensors", safetensors_bytes(tensors()));
  const auto model = load_checkpoint(dir.path().string(), {.drafts = true});
  const auto tokens = load_goldens(std::string(kSource) + "/golden").back().tokens;
  NoComm comm;
  const engine::Batch batch{1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size() + 3))}};
  const auto logits = model->forward_all(batch, comm);
  Answer answer{{logits.begin(), logits.end()}, {}};
  const DraftRow row{.kept = static_cast<std::int32_t>(tokens.size()), .next = 7, .wanted = 3};
  const auto drafts = model->draft(batch, {&row, 1}, comm);
  answer.drafts.assign(drafts.begin(), drafts.end());
  return answer;
}

TEST(SparseAttention, ThatLeavesNothingOutHasTheBitsOfTheDenseModel) {
  auto json = config();
  json["index_topk"] = 4096;
  const Answer whole = run(json);
  json["model_type"] = "deepseek_v3";
  json["architectures"] = {"DeepseekV3ForCausalLM"};
  const Answer dense = run(json);
  ASSERT_EQ(whole.logits.size(), dense.logits.size());
  EXPECT_EQ(
      std::memcmp(whole.logits.data(), dense.logits.data(), dense.logits.size() * sizeof(float)),
      0);
  EXPECT_EQ(whole.drafts, dense.drafts);
}

TEST(SparseAttention, LeavesOutWhatThePastHasMoreThanItsTopK) {
  auto json = config();
  const Answer sparse = run(json);
  json["index_topk"] = 4096;
  const Answer whole = run(json);
  const auto vocab = json["vocab_size"].get<std::size_t>();
  const auto same = [&](std::size_t token) {
    return std::memcmp(sparse.logits.data() + token * vocab, whole.logits.data() + token * vocab,
                       vocab * sizeof(float)) == 0;
  };
  for (std::size_t token = 0; token < kTopK; ++token) EXPECT_TRUE(same(token)) << token;
  EXPECT_FALSE(same(kTopK + 1));
  EXPECT_FALSE(same(399));
}

// The logits after the last token of a text, run in ways that must not matter.
class SparseBits : public testing::Test {
 protected:
  // Computes tokens [begin, end) in blocks that hold those before.
  std::vector<float> run(const std::vector<engine::TokenId>& text, std::size_t begin,
                         std::size_t end, const std::vector<engine::BlockId>& table) {
    const auto logits = model->forward({1, {make_row(text, begin, end, table)}}, comm);
    return {logits.begin(), logits.end()};
  }
  NoComm comm;
  const std::unique_ptr<RankModel> model = load_checkpoint(kSource, {});
  // Eight times as long as what is selected.
  const std::vector<engine::TokenId> tokens =
      load_goldens(std::string(kSource) + "/golden").back().tokens;
  const std::size_t size = tokens.size();
  const std::vector<float> alone = run(tokens, 0, size, blocks_for(size));
};

TEST_F(SparseBits, APrefixThatAnotherTextComputedGivesThem) {
  constexpr int kShared = 3 * engine::kBlockTokens;
  auto other = tokens;
  std::rotate(other.begin() + kShared, other.begin() + kShared + 50, other.end());
  const auto others = blocks_for(size, 20);
  run(other, 0, size, others);
  auto own = blocks_for(size, 40);
  std::copy_n(others.begin(), 3, own.begin());
  expect_same_bits(run(tokens, kShared, size, own), alone);
}

TEST_F(SparseBits, APreemptedTextThatIsComputedAgainGivesThem) {
  run(tokens, 0, 300, blocks_for(size, 20));
  auto other = tokens;
  std::rotate(other.begin(), other.begin() + 70, other.end());
  run(other, 0, size, blocks_for(size, 22));  // takes most of its blocks
  const auto again = blocks_for(size, 21, 2);
  run(tokens, 0, 170, again);
  expect_same_bits(run(tokens, 170, size, again), alone);
}

}  // namespace
}  // namespace dsm::model
