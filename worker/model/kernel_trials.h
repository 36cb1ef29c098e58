// Which kernels a model is computed with, found out on the GPU that will compute it: where there
// are two ways and no reckoning says which is faster, both do steps of a few layers of the model's
// shape, with imagined weights (imagined_weights.h), beside each other. What is new is taken where
// it gives what the other gives and is faster.
//
// Here is what can be said without a GPU: what is worth trying, what follows from what was seen,
// and how that is told from process to process. A kernel that no such GPU has run may fail in ways
// that end a process or never end it, so a process of its own tries (worker/kernel_startup.h):
// run_trials() is its work.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/params.h"
#include "worker/device/kernel_choice.h"
#include "worker/model/config.h"

namespace dsm::model {

// What is tried of a model: how it is cut and computed.
struct TriedModel {
  ModelConfig config;
  int ranks = 1;  // all of them in this process
  bool deterministic = true;
  bool fp8_activations = false;
  std::optional<kernels::DType> round_weights = {};
  kernels::DType kv_dtype = kernels::DType::kF32;
  bool drafts = false;
  bool expert_parallel = false;
  bool data_parallel_attention = false;
  int max_batch_tokens = 512;
  int threads = 1;  // that pack weights
};

// What may hang is the last.
enum class TrialKind : std::uint8_t {
  kWideIntegers,
  kWideFp8,
  kPairedFp8,
  kWideExact,
  kMegakernel
};
inline constexpr std::array kTrialKinds{TrialKind::kWideIntegers, TrialKind::kWideFp8,
                                        TrialKind::kPairedFp8, TrialKind::kWideExact,
                                        TrialKind::kMegakernel};

// So many sequences with so many tokens each.
struct TrialStep {
  int sequences = 1;
  int tokens = 1;

  int rows() const { return sequences * tokens; }
  bool operator==(const TrialStep&) const = default;
};

struct Trial {
  TrialKind kind = TrialKind::kMegakernel;
  std::vector<TrialStep> steps;  // by their rows

  bool operator==(const Trial&) const = default;
};

// What is worth trying of a model on a GPU of this compute capability ("9.0"), in their order.
std::vector<Trial> plan_trials(const TriedModel& model, std::string_view capability);

// A few layers of a rank's share, of each kind that the model has, as a model of one rank.
ModelConfig layers_of(const TriedModel& model);

// A step by what is proven and by what is tried.
struct StepSeen {
  int rows = 0;
  // The largest difference between two numbers of what the last layer gives, whose root mean square
  // is one; infinite where one is not a number.
  double difference = 0;
  double proven_us = 0;
  double tried_us = 0;
};
struct TrialSeen {
  TrialKind kind = TrialKind::kMegakernel;
  std::vector<StepSeen> steps;
};

// The least that a kernel has to be faster to be taken: times of the same steps differ by about as
// much.
inline constexpr double kWorthwhile = 0.03;
// By which what a trial computes may differ from what is proven; 0: it has the same bits.
double bound_of(TrialKind kind);

struct TrialsJudged {
  device::KernelChoice kernels = device::proven_kernels();
  std::string text;                   // for the log: each trial with its times
  std::vector<std::string> warnings;  // kernels that are wrong here, with the numbers
};
TrialsJudged judge(std::span<const TrialSeen> seen);

// What a process that tries is told, and what it is to do.
struct TrialsAsked {
  TriedModel model;
  std::vector<Trial> trials;
  int repeats = 9;  // of each step, of which the median counts
};
// `dir` has the model's config.json.
std::string text_of(const TrialsAsked& asked, const std::filesystem::path& dir);
// kInvalid, kNotFound: it is something else, or there is no such model any more.
Result<TrialsAsked> read_asked(std::string_view text);

// What it writes, line by line: that it begins a trial, what it has seen, that it
// is through, or why it cannot go on.
std::string line_of_begin(TrialKind kind);
std::string line_of(const TrialSeen& seen);
std::string line_of_end();
std::string line_of_failure(std::string_view why);

struct TrialsTold {
  std::vector<TrialSeen> seen;
  std::optional<TrialKind> under_way;  // the one that was begun last, if it has not ended
  bool ended = false;
  std::string failure;
};
// What was written so far. kInvalid: it is something else, or of trials that were not `planned`.
Result<TrialsTold> read_trials(std::string_view written, std::span<const Trial> planned);

std::string_view name_of(TrialKind kind);
// The proven kernels and, of those that are tried, this one.
device::KernelChoice kernels_of(TrialKind kind);

// Does the trials on the first GPU and says each line, without its end, as soon as it is known.
// Throws as backends do. kInvalid, kExhausted: as RankModel::load().
Status run_trials(const TrialsAsked& asked,
                  const std::function<void(const std::string& line)>& say);

}  // namespace dsm::model
