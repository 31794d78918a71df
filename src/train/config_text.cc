// [data] format = "text": the vocabulary, which is known before the model is built, and the blocks of the splits.
#include "base/error.h"
#include "bp/io.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using Blocks = data::TextBlocks;

// "vocabulary" becomes the number of symbols, wherever a value stands.
void substitute(Node& n, std::int64_t size) {
  for (auto& [key, value] : n.entries) {
    if (value.kind == Node::Kind::text && value.text == "vocabulary" && key != "name" && key != "type") {
      const std::string where = value.where;
      value = Node::of(size);
      value.where = where;
    }
    substitute(value, size);
  }
  for (Node& item : n.items) substitute(item, size);
}

SourcePtr blocks(const Config& c, const Array& ids, bool training, const std::string& name) {
  const DataConfig& d = c.data;
  return std::make_shared<const Blocks>(
      ids, d.context, training ? data::random_blocks(d.blocks) : data::strided_blocks(d.stride), name);
}

// Bytes are their own ids, so their file can be read as one of tokens.
bool stays_on_disk(const Config& c) {
  if (c.data.vocabulary->unit() != data::TextUnit::byte || !is_streamed(c, c.data.train)) return false;
  for (const std::optional<Files>& files : {std::optional(c.data.train), c.data.validation, c.data.test})
    if (files && is_compressed(files->inputs))
      fail(ErrorKind::config, "{}: is compressed, but text that is streamed is read from random places: decompress it",
           files->inputs);
  return true;
}

Array ids_of(const Config& c, Split split) {
  check_text_fits(files_of(c, split).inputs);
  return data::load_text(files_of(c, split).inputs, *c.data.vocabulary).ids;
}

// {training, held out}; nothing is held out without a validation_fraction.
std::pair<Array, Array> training_ids(const Config& c) {
  Array ids = ids_of(c, Split::train);
  if (c.data.limit > 0 && c.data.limit < ids.numel()) ids.shape[0] = c.data.limit;
  if (c.data.validation_fraction > 0) return data::split_text(ids, c.data.validation_fraction);
  return {ids, Array{}};
}

SourcePtr held_out(const Config& c, const Array& ids) {
  return blocks(c, ids, false, c.data.train.inputs + " (the part held out for validation)");
}

}  // namespace

void read_vocabulary(Config& c, const std::string& folder) {
  Node* table = c.root.find("data");
  const Node* format = table == nullptr ? nullptr : table->find("format");
  if (format == nullptr || format->text != "text") return;
  Section s(*table, "data", "data");
  if (s.text("unit") == "byte") {
    if (s.has("vocabulary")) s.wrong("vocabulary", "has no place beside unit = \"byte\": ids are the 256 bytes");
    c.data.vocabulary = data::Vocabulary::bytes();
  } else if (const Node* given = s.value("vocabulary")) {
    c.data.vocabulary = data::Vocabulary::of(given->text, "data.vocabulary");
  } else {
    const Node& file = *s.value("train");
    if (file.kind != Node::Kind::text) s.wrong("train", "with format = \"text\" expected a path, got " + file.str());
    const std::string path = resolved_path(file, folder);
    check_text_fits(path);
    const Buffer content = io::read_file(path);
    if (content.bytes() == 0) fail(ErrorKind::format, "{}: the file is empty: expected text", path);
    c.data.vocabulary = data::Vocabulary::of({content.as<char>(), content.bytes()}, path);
    s.record("vocabulary", Node::of(c.data.vocabulary->characters()));
  }
  if (Node* model = c.root.find("model")) substitute(*model, c.data.vocabulary->size());
}

void read_context(Section& s, Config& c, const char* what) {
  if (c.root.find("loss")->find("type")->text != "cross_entropy")
    s.wrong("format", fmt::format("{} learnt with loss.type = \"cross_entropy\"", what));
  if (c.input.rank() != 1) s.wrong("context", fmt::format("expected model.input = [context], got {}", c.input));
  if (!s.has("context")) s.record("context", Node::of(c.input[0]));
  c.data.context = s.integer("context");
  if (c.data.context != c.input[0])
    s.wrong("context", fmt::format("is {}, but model.input is {}: expected the same", c.data.context, c.input));
}

void read_text_options(Section& s, Config& c) {
  DataConfig& d = c.data;
  read_context(s, c, "text is");
  d.blocks = s.integer("blocks");
  d.stride = s.has("stride") ? s.integer("stride") : d.context;
  d.token_type = "u8";
  if (s.has("stream")) d.stream = s.boolean("stream");
  if (d.stream.value_or(false) && d.vocabulary->unit() != data::TextUnit::byte)
    s.wrong("stream", "characters are kept in memory: expected unit = \"byte\", or format = \"tokens\"");
  const Shape expected{d.context, d.vocabulary->size()};
  if (c.output != expected)
    s.wrong("vocabulary",
            fmt::format("the model's output is {}, expected {}: a score a symbol at each place", c.output, expected));
}

Datasets load_text(Config& c) {
  if (stays_on_disk(c)) return load_tokens(c);
  const auto [train, rest] = training_ids(c);
  Datasets sets;
  sets.train = blocks(c, train, true, c.data.train.inputs);
  sets.altered = sets.train;
  if (rest.buffer) sets.validation = held_out(c, rest);
  if (c.data.validation) sets.validation = blocks(c, ids_of(c, Split::validation), false, c.data.validation->inputs);
  if (c.data.test) sets.test = blocks(c, ids_of(c, Split::test), false, c.data.test->inputs);
  return sets;
}

SourcePtr load_text(Config& c, Split split) {
  if (stays_on_disk(c)) return load_tokens(c, split);
  if (split == Split::test || (split == Split::validation && c.data.validation))
    return blocks(c, ids_of(c, split), false, files_of(c, split).inputs);
  const auto [train, rest] = training_ids(c);
  if (split == Split::train) return blocks(c, train, false, c.data.train.inputs);
  if (!rest.buffer) files_of(c, split);  // throws
  return held_out(c, rest);
}

}  // namespace bp::train
