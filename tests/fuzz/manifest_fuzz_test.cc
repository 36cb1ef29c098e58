// Manifests as people write them, with mistakes: read, or refused with a sentence.
#include <gtest/gtest.h>

#include "ctl/manifest.h"
#include "operator/api/spec.h"
#include "tests/fuzz/mutate.h"

namespace dsm::ctl {
namespace {

TEST(ManifestFuzz, ABrokenManifestIsReadOrRefused) {
  const std::string good =
      "apiVersion: deepseek-operator.io/v1alpha1\nkind: DeepSeekModel\nmetadata: {name: r1, "
      "labels: &l {a: b}}\n"
      "spec:\n  model: {uri: 'image:///models/deepseek-tiny', revision: \"1\"}\n"
      "  parallelism:\n    tensor: 4\n    ranksPerPod: 2\n  replicas: 2\n"
      "  template:\n    labels: *l\n    env:\n    - {name: A, value: yes}\n    - name: B\n      "
      "value: |\n        "
      "text\n"
      "---\nkind: Service\nmetadata: {name: s, annotations: {c: '1'}}\n";
  ASSERT_TRUE(parse_manifest(good));
  fuzz::Random random(1);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto manifest = parse_manifest(fuzz::mutate(good, random));
    if (!manifest) {
      ++refused;
      EXPECT_EQ(manifest.error().kind, ErrorKind::kInvalid);
      EXPECT_FALSE(manifest.error().message.empty());
      continue;
    }
    ++accepted;
    for (const auto& model : manifest->models) (void)api::parse_spec(applied({}, model)["spec"]);
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace dsm::ctl
