// From a prompt to ids, through the model, and back.
#include "train/sample.h"

#include "base/error.h"
#include "bp/gpt.h"

namespace bp::train {

namespace {

std::vector<std::int64_t> prompt_ids(const data::Vocabulary& v, const std::string& prompt) {
  if (!prompt.empty()) return v.encode(prompt, "the prompt");
  const bool has_line_break = v.unit() == data::TextUnit::byte || v.characters().find('\n') != std::string::npos;
  return has_line_break ? v.encode("\n") : std::vector<std::int64_t>{0};
}

}  // namespace

std::string sample_text(const Config& c, const nn::Sequential& model, const SampleOptions& o) {
  if (!c.data.vocabulary)
    fail(ErrorKind::config, "sample: the run was trained on {}: expected a run on text (data.format = \"text\")",
         c.data.format);
  const data::Vocabulary& v = *c.data.vocabulary;
  const std::vector<std::int64_t> prompt = prompt_ids(v, o.prompt);
  nn::GenerateOptions g{.tokens = o.tokens,
                        .temperature = o.temperature,
                        .top_k = o.top_k,
                        .key = Key{o.seed}.fold("sample"),
                        .threads = c.train.threads};
  if (o.on_text) g.on_token = [&](std::int64_t id) { return o.on_text(v.decode({&id, 1})); };
  const auto* gpt = model.size() == 1 ? dynamic_cast<const nn::GPT*>(&model[0]) : nullptr;
  const std::vector<std::int64_t> written =
      gpt != nullptr ? nn::generate(*gpt, prompt, g)
                     : nn::generate([&](const Tensor& ids) { return model(ids); }, c.data.context, prompt, g);
  return v.decode(prompt) + v.decode(written);
}

}  // namespace bp::train
