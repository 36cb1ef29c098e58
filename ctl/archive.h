// Files in memory to a .tar.gz on disk, by libarchive.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace dsm::ctl {

struct BundleFile {
  std::string path;  // in the archive: "r1/pods.json"
  std::string content;
};

// Only the user may read the archive. It is complete or not there; one that is there is kept
// (kConflict). `time` becomes the time of each file.
Status write_tar_gz(const std::string& path, const std::vector<BundleFile>& files, WallTime time);

}  // namespace dsm::ctl
