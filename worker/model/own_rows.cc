#include "worker/model/own_rows.h"

namespace dsm::model {
namespace {

void move_rows(Step& step, int by) {
  const std::int64_t values = std::int64_t{by} * step.c.hidden_size;
  step.token_ids += by;
  step.places += by;
  step.x += values;
  step.normed += values;
}

}  // namespace

OwnRows::OwnRows(Step& step) : step_(step), all_(step.tokens) {
  if (!step.attends_alone()) return;
  step.own_runs.clear();
  step.tokens = 0;
  for (const TokenRun& run : step.runs) {
    if (run.rank != step.rank) continue;
    if (step.own_runs.empty()) begin_ = run.begin;
    step.own_runs.push_back(run);
    step.own_runs.back().begin -= begin_;
    step.tokens += run.size;
  }
  step.runs.swap(step.own_runs);
  step.adapted.narrow(begin_, begin_ + step.tokens);
  move_rows(step, begin_);
}

OwnRows::~OwnRows() {
  if (!step_.attends_alone()) return;
  move_rows(step_, -begin_);
  step_.adapted.widen();
  step_.runs.swap(step_.own_runs);
  step_.tokens = all_;
}

}  // namespace dsm::model
