// [data] format = "tokens": shards of ids on disk, which somebody else made of text.
#include "base/error.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

data::TokenFiles open_shards(const Config& c, const Files& files) {
  return data::TokenFiles(files.inputs, {c.data.token_type, c.data.header});
}

SourcePtr token_blocks(const Config& c, data::TokenFiles ids, bool training) {
  const DataConfig& d = c.data;
  return std::make_shared<const data::TokenBlocks>(
      std::move(ids), d.context, training ? data::random_blocks(d.blocks) : data::strided_blocks(d.stride),
      c.output.back());
}

// {training, held out}; nothing is held out without a validation_fraction.
std::pair<data::TokenFiles, std::optional<data::TokenFiles>> training_shards(const Config& c) {
  data::TokenFiles all = open_shards(c, c.data.train);
  if (c.data.limit > 0 && c.data.limit < all.size()) all = all.part(0, c.data.limit);
  if (c.data.validation_fraction == 0) return {std::move(all), std::nullopt};
  auto [train, rest] = all.split(c.data.validation_fraction);
  return {std::move(train), std::move(rest)};
}

}  // namespace

void read_token_options(Section& s, Config& c) {
  DataConfig& d = c.data;
  read_context(s, c, "tokens are");
  if (c.output.rank() != 2 || c.output[0] != d.context)
    s.wrong("format", fmt::format("the model's output is {}, expected [{}, vocabulary]: a score a token at each place",
                                  c.output, d.context));
  d.blocks = s.integer("blocks");
  d.stride = s.has("stride") ? s.integer("stride") : d.context;
  d.token_type = s.text("ids");
  d.header = s.integer("header");
}

Datasets load_tokens(Config& c) {
  auto [train, rest] = training_shards(c);
  Datasets sets;
  sets.streamed =
      fmt::format("streams {:.2f} GB from {} ({} shards, {} tokens), blocks from random places",
                  static_cast<double>(train.file_bytes()) / 1e9, train.name(), train.shards(), train.size());
  sets.train = token_blocks(c, std::move(train), true);
  sets.altered = sets.train;
  if (rest) sets.validation = token_blocks(c, std::move(*rest), false);
  if (c.data.validation) sets.validation = token_blocks(c, open_shards(c, *c.data.validation), false);
  if (c.data.test) sets.test = token_blocks(c, open_shards(c, *c.data.test), false);
  return sets;
}

SourcePtr load_tokens(Config& c, Split split) {
  if (split == Split::test || (split == Split::validation && c.data.validation))
    return token_blocks(c, open_shards(c, files_of(c, split)), false);
  auto [train, rest] = training_shards(c);
  if (split == Split::train) return token_blocks(c, std::move(train), false);
  if (!rest) files_of(c, split);  // throws
  return token_blocks(c, std::move(*rest), false);
}

}  // namespace bp::train
