// Which files a path stands for.
#include "data/shards.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/error.h"

namespace bp::data {

namespace {

namespace fs = std::filesystem;

// "*" stands for any text, "?" for any character.
bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, after = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++after;
    } else {
      return false;
    }
  }
  return pattern.substr(p).find_first_not_of('*') == std::string_view::npos;
}

}  // namespace

bool is_pattern(const std::string& path) {
  std::error_code error;
  return fs::path(path).filename().string().find_first_of("*?") != std::string::npos && !fs::exists(path, error);
}

// Names are compared as they are: shard numbers want leading zeros.
std::vector<std::string> shard_paths(const std::string& path, const std::vector<std::string>& endings) {
  std::error_code error;
  const fs::path given(path);
  const bool folder = fs::is_directory(given, error);
  if (!folder && !is_pattern(path)) return {path};
  const std::string pattern = given.filename().string();
  const fs::path in = folder ? given : given.has_parent_path() ? given.parent_path() : fs::path(".");
  std::vector<std::string> paths;
  fs::directory_iterator at(in, error);
  for (const fs::directory_iterator end; !error && at != end; at.increment(error)) {
    const fs::path& p = at->path();
    const std::string name = p.filename().string();
    const bool wanted =
        folder ? std::find(endings.begin(), endings.end(), p.extension()) != endings.end() : matches(pattern, name);
    if (wanted && at->is_regular_file(error)) paths.push_back(p.string());
  }
  if (error) fail(ErrorKind::io, "cannot read the folder {}: {}", in.string(), error.message());
  if (paths.empty())
    fail(ErrorKind::io, "{}: {}", path,
         folder ? fmt::format("holds no {} file", fmt::join(endings, " or ")) : "no file has such a name");
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace bp::data
