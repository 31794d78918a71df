// Which files a path stands for. Used by sources of several files.
#pragma once

#include <string>
#include <vector>

namespace bp::data {

// A path whose last part has a "*" (any text) or a "?" (any character), and that is no file itself.
bool is_pattern(const std::string& path);
// The file itself; of a folder its files with one of the endings; of a pattern those that fit: in the order of their
// names. Throws Error(io) when there are none.
std::vector<std::string> shard_paths(const std::string& path, const std::vector<std::string>& endings = {});

}  // namespace bp::data
