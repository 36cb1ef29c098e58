// How an emulated GPU is, in a file that whoever tries something changes while programs run: the
// file has the GPU's PCI address as its name and is in the folder that DSM_EMULATED_NVML names.
//
// A line is a name and a number; of several with one name the last counts, so that
// `echo temperature 93 >>FILE` is a change. "-" in place of a number: the product does not tell it.
// Each line `xid 79` is an event of its own. What no line says is as on an H100 that is well. A
// line without its end is not there yet; one that has another name ends the program.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsm::emulation {

struct GpuFile {
  // Nothing where the product does not tell it.
  std::optional<std::uint64_t> value(std::string_view name) const;
  bool lost() const { return value("lost").value_or(0) != 0; }

  std::map<std::string, std::optional<std::uint64_t>, std::less<>> values;
  std::vector<std::uint64_t> xids;  // in their order
};

// Empty: nobody says how GPUs are.
std::string gpu_folder();

// Nullopt: there is no GPU at this address, as far as the folder says.
std::optional<GpuFile> read_gpu_file(const std::string& address);

}  // namespace dsm::emulation
