// From a TOML tree to a Config: everything but the layers (config_model.cc) and the data (config_data.cc).
#include "train/config.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "bp/ops.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using OptimizerPtr = std::unique_ptr<optim::Optimizer>;
using Parameters = std::span<const Variable>;

// Files that layers name lie beside the configuration.
void resolve_layer_files(Node& layers, const std::string& folder) {
  for (Node& layer : layers.items) {
    if (Node* file = layer.find("file"); file != nullptr && file->kind == Node::Kind::text)
      *file = Node{Node::of(resolved_path(*file, folder))};
    for (const char* inner : {"layers", "shortcut"})
      if (Node* list = layer.find(inner)) resolve_layer_files(*list, folder);
  }
}

void read_model(Config& c, const std::string& folder) {
  Section s(subtable(c.root, "model"), "model", "model");
  const std::vector<std::int64_t> dims = s.integers("input");
  if (dims.size() + 1 > Shape::kMaxRank) s.wrong("input", fmt::format("{} dimensions are too many", dims.size()));
  c.input = Shape(std::span(dims));
  Shape shape{1};
  for (const std::int64_t d : dims) shape.push_back(d);
  Node& layers = *s.value("layers");
  if (layers.items.empty()) s.wrong("layers", "expected at least one layer");
  resolve_layer_files(layers, folder);
  c.model = read_layers(layers, "model.layers", shape);
  shape.erase(0);
  c.output = shape;
  if (nn::parameter_count(c.model) == 0) s.wrong("layers", "no layer has parameters: there is nothing to train");
}

Loss configured_cross_entropy(Section& s, const Config& c) {
  CrossEntropyOptions o{.label_smoothing = s.number("label_smoothing")};
  if (const std::vector<double> w = s.numbers("class_weights"); !w.empty()) {
    if (static_cast<std::int64_t>(w.size()) != c.output.back())
      s.wrong("class_weights", fmt::format("expected {} numbers, one a class, got {}", c.output.back(), w.size()));
    const std::vector<float> weights(w.begin(), w.end());
    o.class_weights =
        c.dtype == DType::f64 ? Tensor::from(w, {c.output.back()}) : Tensor::from(weights, {c.output.back()});
  }
  return [o](const Tensor& y, const Tensor& t) { return cross_entropy(y, t, o); };
}

void read_loss(Config& c) {
  Section s(subtable(c.root, "loss"), "loss", "loss");
  const std::string& type = s.type();
  c.task = Task::regression;
  if (type == "cross_entropy" || type == "kl_divergence") {
    c.task = Task::classification;
    if (c.output.rank() < 1 || c.output.back() < 2)
      s.wrong("type", fmt::format("{} needs an output of 2 or more classes, the model's is {}", type, c.output));
    if (type == "cross_entropy") {
      c.loss = configured_cross_entropy(s, c);
    } else {
      c.loss = [](const Tensor& y, const Tensor& t) { return kl_divergence(log_softmax(y), t); };
    }
  } else if (type == "binary_cross_entropy") {
    c.task = Task::binary;
    c.loss = [](const Tensor& y, const Tensor& t) { return binary_cross_entropy(y, t); };
  } else if (type == "half_squared_error") {
    c.loss = [](const Tensor& y, const Tensor& t) { return half_squared_error(y, t); };
  } else if (type == "l1") {
    c.loss = [](const Tensor& y, const Tensor& t) { return l1_loss(y, t); };
  } else if (type == "huber") {
    c.loss = [delta = s.number("delta")](const Tensor& y, const Tensor& t) { return huber_loss(y, t, delta); };
  } else {
    c.loss = [](const Tensor& y, const Tensor& t) { return squared_error(y, t); };
  }
}

// What all optimizers share.
template <class Options> Options common_options(Section& s) {
  Options o;
  o.lr = s.number("lr");
  o.weight_decay = s.number("weight_decay");
  o.clip_norm = s.number("clip_norm");
  o.clip_value = s.number("clip_value");
  if (!s.boolean("decay_vectors")) o.groups = {optim::no_decay_on_vectors()};
  return o;
}

template <class O, class Options> void set_optimizer(Config& c, Options o) {
  c.lr = o.lr;
  c.optimizer = [o](Parameters p) -> OptimizerPtr { return std::make_unique<O>(p, o); };
}

template <class O, class Options> void adam(Section& s, Config& c) {
  Options o = common_options<Options>(s);
  o.beta1 = s.number("beta1");
  o.beta2 = s.number("beta2");
  o.eps = s.number("eps");
  o.amsgrad = s.boolean("amsgrad");
  set_optimizer<O>(c, std::move(o));
}

void sgd(Section& s, Config& c) {
  auto o = common_options<optim::SGDOptions>(s);
  o.momentum = s.number("momentum");
  o.dampening = s.number("dampening");
  o.nesterov = s.boolean("nesterov");
  if (o.nesterov && (o.momentum == 0 || o.dampening != 0))
    s.wrong("nesterov", "needs a momentum above 0, and no dampening");
  set_optimizer<optim::SGD>(c, std::move(o));
}

void read_optimizer(Config& c) {
  Section s(subtable(c.root, "optimizer"), "optimizer", "optimizer");
  if (s.type() == "sgd") {
    sgd(s, c);
  } else if (s.type() == "rmsprop") {
    auto o = common_options<optim::RMSPropOptions>(s);
    o.momentum = s.number("momentum");
    o.alpha = s.number("alpha");
    o.centered = s.boolean("centered");
    o.eps = s.number("eps");
    set_optimizer<optim::RMSProp>(c, std::move(o));
  } else if (s.type() == "adagrad") {
    auto o = common_options<optim::AdagradOptions>(s);
    o.lr_decay = s.number("lr_decay");
    o.initial_accumulator = s.number("initial_accumulator");
    o.eps = s.number("eps");
    set_optimizer<optim::Adagrad>(c, std::move(o));
  } else if (s.type() == "adam") {
    adam<optim::Adam, optim::AdamOptions>(s, c);
  } else {
    adam<optim::AdamW, optim::AdamWOptions>(s, c);
  }
}

// A schedule over `steps` counts, warm-up not included.
using Make = std::function<Schedule(std::int64_t steps)>;

Make one_cycle(Section& s, double lr) {
  const schedule::OneCycleOptions o{.pct_start = s.number("pct_start"),
                                    .cosine = s.text("anneal") == "cosine",
                                    .div_factor = s.number("div_factor"),
                                    .final_div_factor = s.number("final_div_factor")};
  return [lr, o](std::int64_t steps) { return schedule::one_cycle(lr, steps, o); };
}

Make schedule_of(Section& s, double lr) {
  const std::string& type = s.type();
  if (type == "step")
    return [lr, every = s.integer("every"), gamma = s.number("gamma")](std::int64_t) {
      return schedule::step(lr, every, gamma);
    };
  const std::vector<std::int64_t> at = type == "multistep" ? s.integers("milestones") : std::vector<std::int64_t>();
  if (type == "multistep" && !std::is_sorted(at.begin(), at.end()))
    s.wrong("milestones", "expected ascending numbers, got " + s.value("milestones")->str());
  if (type == "multistep")
    return [lr, at, gamma = s.number("gamma")](std::int64_t) { return schedule::multistep(lr, at, gamma); };
  if (type == "exponential")
    return [lr, gamma = s.number("gamma")](std::int64_t) { return schedule::exponential(lr, gamma); };
  if (type == "cosine")
    return [lr, min = s.number("min")](std::int64_t steps) { return schedule::cosine(lr, steps, min); };
  if (type == "polynomial")
    return [lr, power = s.number("power")](std::int64_t steps) { return schedule::polynomial(lr, steps, power); };
  if (type == "one_cycle") return one_cycle(s, lr);
  return [lr](std::int64_t) { return schedule::constant(lr); };
}

void read_schedule(Config& c) {
  Section s(subtable(c.root, "schedule"), "schedule", "schedule", "constant");
  c.schedule_by_epoch = s.boolean("by_epoch");
  if (s.type() == "reduce_on_plateau") {
    c.plateau = ReduceOnPlateauOptions{.factor = s.number("factor"),
                                       .patience = s.integer("patience"),
                                       .threshold = s.number("threshold"),
                                       .cooldown = s.integer("cooldown"),
                                       .min_rate = s.number("min_rate")};
    return;
  }
  const std::int64_t warmup = s.integer("warmup_steps");
  const double start = s.number("warmup_start");
  const Make make = schedule_of(s, c.lr);
  if (s.type() == "constant" && warmup == 0) return;
  const bool has_length = find_key("schedule", s.type(), "steps") != nullptr;
  const Node* given = has_length ? s.value("steps") : nullptr;
  const std::int64_t length = given == nullptr ? 0 : given->integer;
  c.schedule = [=, epochs = c.train.epochs, by_epoch = c.schedule_by_epoch](std::int64_t updates) {
    const std::int64_t whole = (by_epoch ? epochs : epochs * updates) - warmup;
    const Schedule after = make(length > 0 ? length : std::max<std::int64_t>(1, whole));
    return warmup > 0 ? schedule::warmup(after, warmup, start) : after;
  };
}

void read_limits(Section& s, Options& o) {
  o.watch = s.text("watch");
  o.top_k = s.integer("top_k");
  if (s.has("target")) o.target = s.number("target");
  o.max_steps = s.integer("max_steps");
  o.max_seconds = s.number("max_seconds");
  if (s.has("max_loss")) o.max_loss = s.number("max_loss");
  o.rollbacks = static_cast<int>(s.integer("rollbacks"));
  o.rollback_factor = s.number("rollback_factor");
  o.checkpoint.every_steps = s.integer("checkpoint_steps");
  o.checkpoint.every_seconds = s.number("checkpoint_seconds");
  o.checkpoint.keep_last = static_cast<int>(s.integer("keep_checkpoints"));
  o.checkpoint.keep_best = static_cast<int>(s.integer("keep_best_checkpoints"));
}

void read_averages(Section& s, const Config& c, Options& o) {
  o.accumulate = s.integer("accumulate");
  o.ema = s.number("ema");
  o.swa_from = s.integer("swa_from");
  if (o.swa_from > 0 && o.ema > 0) s.wrong("swa_from", "ema averages too: give one of them");
  if (o.swa_from > 0 && c.keep_best) s.wrong("swa_from", "the average is not of one epoch: needs keep = \"last\"");
  if (o.swa_from > o.epochs) s.wrong("swa_from", fmt::format("there are only {} epochs", o.epochs));
}

void read_training(Config& c) {
  Section s(subtable(c.root, "train"), "train", "train");
  c.train.epochs = s.integer("epochs");
  c.batch = s.integer("batch");
  c.eval_batch = s.has("eval_batch") ? s.integer("eval_batch") : c.batch;
  c.shuffle = s.boolean("shuffle");
  c.train.patience = s.integer("patience");
  c.train.min_delta = s.number("min_delta");
  c.train.tolerance = s.number("tolerance");
  c.train.check_gradients = s.boolean("check_gradients");
  c.keep_best = s.text("keep") == "best";
  c.train.threads = static_cast<int>(s.integer("threads"));
  c.train.precision = dtype_from_name(s.text("precision"));
  if (c.train.precision == bf16 && c.dtype == f64) s.wrong("precision", "bf16 belongs to dtype f32, and dtype is f64");
  c.report = s.boolean("report");
  c.tensorboard = s.boolean("tensorboard");
  c.train.memory_budget = s.bytes("memory_budget");
  c.train.task = c.task;
  read_limits(s, c.train);
  read_averages(s, c, c.train);
}

// A run and its config.toml know nothing of the search that it may be part of.
void take_search(Config& c) {
  Node* tune = c.root.find("tune");
  if (tune == nullptr) return;
  c.search = read_search(*tune);
  std::erase_if(c.root.entries, [](const auto& entry) { return entry.first == "tune"; });
}

}  // namespace

nn::Sequential Config::make_model(DType as) const {
  nn::Sequential copy = model;
  nn::init(copy, Key{seed}.fold("init"), as);
  return copy;
}

Config parse_config(Node root, const std::string& folder, const std::string& name) {
  Config c;
  c.root = std::move(root);
  take_search(c);
  Section top(c.root, "", "");
  c.name = top.has("name") ? top.text("name") : name;
  if (c.name.empty() || c.name.find('/') != std::string::npos || c.name[0] == '.')
    top.wrong("name", fmt::format("expected the name of a folder, got \"{}\"", c.name));
  top.record("name", Node::of(c.name));
  c.seed = static_cast<std::uint64_t>(top.integer("seed"));
  c.dtype = top.text("dtype") == "f64" ? DType::f64 : DType::f32;
  read_vocabulary(c, folder);
  read_model(c, folder);
  read_loss(c);
  read_training(c);
  read_optimizer(c);
  read_schedule(c);
  read_data(Section(subtable(c.root, "data"), "data", "data"), folder, c);
  if (Node* steps = top.value("augment")) c.augment = read_augment(*steps, c);
  return c;
}

Config read_config(const std::string& path, const std::vector<std::string>& overrides) {
  Node root = read_toml(path);
  for (const std::string& o : overrides) override_key(root, o);
  const std::filesystem::path file(path);
  return parse_config(std::move(root), file.parent_path().string(), file.stem().string());
}

}  // namespace bp::train
