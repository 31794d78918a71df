// Event files, which TensorBoard shows (tensorboard --logdir runs): scalars, histograms, images and text by step.
//
//   io::EventWriter events("events");
//   for (int step = 0; step < 10; ++step) events.scalar("loss", 1.0 / (step + 1), step);
//   events.flush();
//
// Each writer begins a new file in its folder; TensorBoard reads all files of a folder as one run. Records are framed
// as TFRecord (a length, the data, a checksum of each) and appended whole: after a crash a reader finds every record up
// to the torn one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "bp/array.h"

namespace bp::io {

// A folder's event files: one a writer.
class EventWriter {
 public:
  // Makes the folder, and FOLDER/events.out.tfevents.SECONDS.HOST.PROCESS.NUMBER in it. A run that goes on gives the
  // first step that it will write: what older files of the folder say of this step and later ones is then passed over.
  // Throws Error(io), as everything below does when the file cannot be written.
  explicit EventWriter(const std::string& folder, std::int64_t first_step = 0);
  ~EventWriter();  // flushes; an error is lost
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // `tag` names the curve or picture; "group/name" puts it under a heading. Values are kept as f32.
  void scalar(std::string_view tag, double value, std::int64_t step);
  // Of all elements: 64 bins from the least to the largest. What is not finite is left out of it.
  void histogram(std::string_view tag, const Array& values, std::int64_t step);
  // u8, or floats in [0, 1], [height, width, 1 or 3], as PNG. Throws Error(shape) or Error(dtype) for other arrays.
  void image(std::string_view tag, const Array& image, std::int64_t step);
  // Markdown.
  void text(std::string_view tag, std::string_view text, std::int64_t step);

  // Hands what was written to the system: it then survives the end of the program.
  void flush();
  const std::string& path() const noexcept { return path_; }  // of the file

 private:
  void add(std::string_view event);
  void add_value(std::string_view value, std::int64_t step);
  std::string path_, pending_;
  int file_ = -1;
};

}  // namespace bp::io
