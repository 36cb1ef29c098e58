// What `dsmctl fit` says: a model's memory for each number of ranks that is asked about. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ctl/arguments.h"
#include "ctl/text.h"
#include "sizing/fit.h"

namespace dsm::ctl {

struct FittedRanks {
  int tensor = 1;
  std::string mistake;  // why the model cannot be cut so; empty: it can
  sizing::Ask ask;
  sizing::Fit fit;
};

struct Fitted {
  sizing::Shape shape;
  std::vector<FittedRanks> ranks;

  bool any_fits() const;
};

// `memory` in bytes.
Fitted fitted(const sizing::Shape& shape, const FitCommand& command, std::int64_t memory);

std::string fit_text(const Fitted& fitted, const Style& style);
nlohmann::json to_json(const Fitted& fitted);

}  // namespace dsm::ctl
