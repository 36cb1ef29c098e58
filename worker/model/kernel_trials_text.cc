// How trials of kernels are told from process to process: JSON, a line for each thing said.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "worker/model/kernel_trials.h"

namespace dsm::model {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kInfinite = 1e30;  // JSON has none

std::string line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double finite(double value) {
  return std::isfinite(value) ? value : kInfinite;
}

const Trial* find(std::span<const Trial> planned, std::string_view name) {
  for (const Trial& trial : planned) {
    if (name_of(trial.kind) == name) return &trial;
  }
  return nullptr;
}

// Throws as Json does, or std::string where it does not fit.
TrialSeen seen_of(const Json& json, const Trial& planned) {
  TrialSeen seen{.kind = planned.kind, .steps = {}};
  for (const Json& step : json.at("steps")) {
    seen.steps.push_back({.rows = step.at("rows").get<int>(),
                          .difference = step.at("difference").get<double>(),
                          .proven_us = step.at("proven_us").get<double>(),
                          .tried_us = step.at("tried_us").get<double>()});
  }
  bool same = seen.steps.size() == planned.steps.size();
  for (std::size_t i = 0; same && i < seen.steps.size(); ++i) {
    const StepSeen& step = seen.steps[i];
    same = step.rows == planned.steps[i].rows() && step.proven_us > 0 && step.tried_us > 0;
  }
  if (!same) throw std::string("steps that were not planned");
  return seen;
}

// Takes what a line says into `told`.
void read_line(std::string_view text, std::span<const Trial> planned, TrialsTold& told) {
  if (told.ended || !told.failure.empty()) throw std::string("more after the end");
  const Json json = Json::parse(text);
  if (json.contains("end")) {
    told.ended = !told.under_way;
    if (!told.ended) throw std::string("an end within a trial");
    return;
  }
  if (json.contains("failure")) {
    told.failure = json.at("failure").get<std::string>();
    return;
  }
  const bool begins = json.contains("begin");
  const auto name = json.at(begins ? "begin" : "seen").get<std::string>();
  const Trial* trial = find(planned, name);
  if (trial == nullptr) throw std::string("a trial that was not planned");
  if (begins == told.under_way.has_value() || (!begins && *told.under_way != trial->kind)) {
    throw std::string("a trial within another");
  }
  if (begins) {
    told.under_way = trial->kind;
  } else {
    told.seen.push_back(seen_of(json, *trial));
    told.under_way.reset();
  }
}

template <class T>
std::optional<T> number(const Json& json, const char* name) {
  return json.contains(name) ? std::optional(json.at(name).get<T>()) : std::nullopt;
}

}  // namespace

std::string text_of(const TrialsAsked& asked, const std::filesystem::path& dir) {
  const TriedModel& model = asked.model;
  Json json = {{"dir", dir.string()},
               {"ranks", model.ranks},
               {"deterministic", model.deterministic},
               {"fp8_activations", model.fp8_activations},
               {"kv_dtype", static_cast<int>(model.kv_dtype)},
               {"drafts", model.drafts},
               {"expert_parallel", model.expert_parallel},
               {"data_parallel_attention", model.data_parallel_attention},
               {"max_batch_tokens", model.max_batch_tokens},
               {"threads", model.threads},
               {"repeats", asked.repeats}};
  if (model.round_weights) json["round_weights"] = static_cast<int>(*model.round_weights);
  for (const Trial& trial : asked.trials) {
    Json steps = Json::array();
    for (const TrialStep& step : trial.steps) steps.push_back({step.sequences, step.tokens});
    json["trials"].push_back({{"name", name_of(trial.kind)}, {"steps", std::move(steps)}});
  }
  return line(json);
}

Result<TrialsAsked> read_asked(std::string_view text) try {
  const Json json = Json::parse(text);
  const auto config = load_model_config(json.at("dir").get<std::string>());
  if (!config) return std::unexpected(config.error());
  TrialsAsked asked{
      .model = {.config = *config,
                .ranks = json.at("ranks").get<int>(),
                .deterministic = json.at("deterministic").get<bool>(),
                .fp8_activations = json.at("fp8_activations").get<bool>(),
                .round_weights = number<kernels::DType>(json, "round_weights"),
                .kv_dtype = json.at("kv_dtype").get<kernels::DType>(),
                .drafts = json.at("drafts").get<bool>(),
                .expert_parallel = json.at("expert_parallel").get<bool>(),
                .data_parallel_attention = json.at("data_parallel_attention").get<bool>(),
                .max_batch_tokens = json.at("max_batch_tokens").get<int>(),
                .threads = json.at("threads").get<int>()},
      .trials = {},
      .repeats = json.at("repeats").get<int>()};
  for (const Json& trial : json.at("trials")) {
    const auto name = trial.at("name").get<std::string>();
    const auto kind = std::ranges::find(kTrialKinds, name, name_of);
    if (kind == kTrialKinds.end()) return fail(ErrorKind::kInvalid, "no trial is called " + name);
    Trial& added = asked.trials.emplace_back(Trial{*kind, {}});
    for (const Json& step : trial.at("steps")) {
      added.steps.push_back({step.at(0).get<int>(), step.at(1).get<int>()});
    }
  }
  return asked;
} catch (const Json::exception& error) {
  return fail(ErrorKind::kInvalid, std::string("trials cannot be read: ") + error.what());
}

std::string line_of_begin(TrialKind kind) {
  return line({{"begin", name_of(kind)}});
}

std::string line_of(const TrialSeen& seen) {
  Json steps = Json::array();
  for (const StepSeen& step : seen.steps) {
    steps.push_back({{"rows", step.rows},
                     {"difference", finite(step.difference)},
                     {"proven_us", step.proven_us},
                     {"tried_us", step.tried_us}});
  }
  return line({{"seen", name_of(seen.kind)}, {"steps", std::move(steps)}});
}

std::string line_of_end() {
  return line({{"end", true}});
}

std::string line_of_failure(std::string_view why) {
  return line({{"failure", why}});
}

Result<TrialsTold> read_trials(std::string_view written, std::span<const Trial> planned) {
  TrialsTold told;
  const auto nonsense = [&](std::string_view text, const std::string& why) {
    return fail(ErrorKind::kInvalid,
                "wrote '" + std::string(text.substr(0, 100)) + "', which is " + why);
  };
  // A last line that has no end is one that was being written.
  for (std::size_t end = 0; (end = written.find('\n')) != std::string_view::npos;
       written.remove_prefix(end + 1)) {
    const std::string_view text = written.substr(0, end);
    try {
      read_line(text, planned, told);
    } catch (const Json::exception&) {
      return nonsense(text, "no line of a trial");
    } catch (const std::string& why) {
      return nonsense(text, why);
    }
  }
  return told;
}

}  // namespace dsm::model
