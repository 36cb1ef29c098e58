// The numbers of some models, asked by paths as they come. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "operator/metrics_api/api.h"

namespace dsm::metrics_api {

class ViewFixture : public testing::Test {
 protected:
  http::Response get(const std::string& path, const std::string& query = "") {
    const auto call = call_of(path, query);
    return call ? answer(*call, view) : status_answer(400, call.error().message);
  }
  // A model of the namespace `ns` that is idle.
  plan::ModelLoad& add(const std::string& name) {
    plan::ModelLoad load;
    load.model = name;
    load.time = from_rfc3339("2026-01-01T00:00:07Z");
    view.loads.push_back(load);
    return view.loads.back();
  }

  View view{.synced = true, .loads = {}};
};

}  // namespace dsm::metrics_api
