// For tests that are run on every table of operators of this machine.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "kernels/ops.h"

namespace dsm::kernels {

class OnEveryTable : public testing::TestWithParam<const Ops*> {
 protected:
  const Ops& ops() const { return *GetParam(); }
};

inline auto all_tables() {
  return testing::ValuesIn(available_ops().begin(), available_ops().end());
}

inline std::string table_name(const testing::TestParamInfo<const Ops*>& table) {
  return std::string(table.param->name);
}

}  // namespace dsm::kernels
