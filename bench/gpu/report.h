// Measurements as JSON lines, and JSON lines as tables for docs/benchmarks.md. Pure.
#pragma once

#include <istream>
#include <string>

#include "base/result.h"
#include "bench/gpu/bounds.h"

namespace dsm::bench {

struct Measurement {
  std::string device;
  std::string model;
  std::string name;  // of an operator with its type, or of a step: "decode", "prefill"
  int rows = 0;      // tokens that go through
  double seconds = 0;
  Work work = {};           // no bytes: it is not known
  double host_seconds = 0;  // of this thread on a core; 0: not measured
};

// With what follows from it: GB/s, TFLOP/s, tokens/s, and where the device is known its bound and
// the share of it that was reached.
std::string json_line(const Measurement& measurement);

// A Markdown table for each device and model, in the order of lines. kInvalid: names the line.
Result<std::string> tables(std::istream& lines);

}  // namespace dsm::bench
