// The parts of the exporter that all ops share: names, constants, symbolic sizes, and layouts on demand.
#include "onnx/exporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace bp::onnx {

using proto::Attribute;

std::string str(const Extent& e) {
  if (e.fixed()) return std::to_string(e.offset);
  std::string text = e.slope == 1 ? "N" : fmt::format("{}*N", e.slope);
  return e.offset == 0 ? text : fmt::format("{}{:+}", text, e.offset);
}

namespace {

std::vector<std::int64_t> to_channels_first(int rank) {
  std::vector<std::int64_t> p{0, rank - 1};
  for (int i = 1; i < rank - 1; ++i) p.push_back(i);
  return p;
}
std::vector<std::int64_t> to_channels_last(int rank) {
  std::vector<std::int64_t> p{0};
  for (int i = 2; i < rank; ++i) p.push_back(i);
  p.push_back(1);
  return p;
}

}  // namespace

Named& Exporter::slot(ir::Value v) {
  auto& outputs = values_[v.node];
  if (outputs.empty()) outputs.resize(g_.nodes[v.node].types.size());
  return outputs[v.output];
}

std::string Exporter::fresh(const std::string& base) {
  if (shared_.taken.insert(base).second) return base;
  for (int i = 1;; ++i)
    if (std::string name = fmt::format("{}_{}", base, i); shared_.taken.insert(name).second) return name;
}

std::string Exporter::constant(const Array& a) {
  std::string key = fmt::format("{}{}:", name_of(a.dtype), a.shape.str());
  key.append(a.buffer.as<char>(), a.bytes());
  auto [found, added] = shared_.constants.try_emplace(key);
  if (added) {
    found->second = fresh("constant");
    shared_.main->initializers.emplace_back(found->second, a);
  }
  return found->second;
}

std::string Exporter::integers(const std::vector<std::int64_t>& values) {
  return constant(Array::from(values, {static_cast<std::int64_t>(values.size())}));
}

std::string Exporter::scalar(double value, DType dtype) {
  return constant(convert(Array::from(std::vector<double>{value}, Shape{}), dtype));
}

std::string Exporter::emit(const std::string& op, std::vector<std::string> inputs, std::vector<Attribute> attributes,
                           const std::string& name) {
  proto::Node n;
  n.op = op;
  n.name = name.empty() ? fresh(path_.empty() ? op : path_ + "/" + op) : name;
  n.inputs = std::move(inputs);
  n.outputs = {n.name};
  n.attributes = std::move(attributes);
  out_.nodes.push_back(std::move(n));
  return out_.nodes.back().outputs[0];
}

std::vector<std::string> Exporter::emit_many(const std::string& op, std::vector<std::string> inputs,
                                             std::size_t outputs, std::vector<Attribute> attributes) {
  const std::string name = emit(op, std::move(inputs), std::move(attributes));
  std::vector<std::string> names{name};
  while (names.size() < outputs) names.push_back(fresh(name));
  out_.nodes.back().outputs = names;
  return names;
}

// ---- Sizes ---------------------------------------------------------------------------------------------------------

void Exporter::refuse(ir::NodeId i, std::string_view why) const {
  const std::string& path = ir::scope_path(node(i).scope);
  fail(ErrorKind::value, "[export_onnx] {}{}: {}", path.empty() ? "" : path + ": ", ir::name_of(node(i).op), why);
}

Extent Exporter::extent_of(std::int64_t a, std::int64_t b, ir::NodeId at) const {
  if (a == b) return {0, a};
  const std::int64_t steps = shared_.batch[1] - shared_.batch[0];
  if (steps == 0 || (b - a) % steps != 0)
    refuse(at, fmt::format("the size {} at a batch of {} and {} at {} is no multiple of the batch: export it with a "
                           "fixed batch (dynamic_batch = false)",
                           a, shared_.batch[0], b, shared_.batch[1]));
  const Extent e{(b - a) / steps, a - (b - a) / steps * shared_.batch[0]};
  // A size that grows faster than linearly would pass for a line through two points with an odd offset.
  if (std::abs(e.offset) > shared_.batch[0])
    refuse(at,
           "a size grows with the batch, but not in proportion to it: export it with a fixed batch "
           "(dynamic_batch = false)");
  return e;
}

Extents Exporter::extents(ir::Value v) const {
  const Shape &a = g_.type(v).shape, &b = other_.type(v).shape;
  Extents out;
  for (int d = 0; d < a.rank(); ++d) out.push_back(extent_of(a[d], b[d], v.node));
  return out;
}

Extents Exporter::ints(ir::NodeId i, const char* attribute) const {
  const ir::Ints &a = g_.nodes[i].attrs.ints(attribute), &b = other_.nodes[i].attrs.ints(attribute);
  Extents out;
  for (std::size_t k = 0; k < a.size(); ++k) out.push_back(extent_of(a[k], b[k], i));
  return out;
}

std::vector<std::int64_t> Exporter::fixed_ints(ir::NodeId i, const char* attribute) const {
  std::vector<std::int64_t> out;
  for (const Extent& e : ints(i, attribute)) {
    if (!e.fixed()) refuse(i, fmt::format("{} depends on the batch", attribute));
    out.push_back(e.offset);
  }
  return out;
}

// The batch size as i64[1], from the shape of the first input, ahead of everything else.
std::string Exporter::batch() {
  if (!shared_.batch_name.empty()) return shared_.batch_name;
  const std::string shape = fresh("batch/Shape");
  shared_.batch_name = fresh("batch");
  shared_.prologue.push_back({"Shape",
                              shape,
                              "",
                              {shared_.first_input},
                              {shape},
                              {Attribute::of("start", std::int64_t{0}), Attribute::of("end", std::int64_t{1})}});
  shared_.prologue.push_back({"Identity", shared_.batch_name, "", {shape}, {shared_.batch_name}, {}});
  return shared_.batch_name;
}

std::string Exporter::shape_value(const Extents& e) {
  std::vector<std::int64_t> run;
  std::vector<std::string> parts;
  const auto end_run = [&] {
    if (!run.empty()) parts.push_back(integers(run));
    run.clear();
  };
  if (std::all_of(e.begin(), e.end(), [](const Extent& x) { return x.fixed(); })) {
    for (const Extent& x : e) run.push_back(x.offset);
    return integers(run);
  }
  std::string key;
  for (const Extent& x : e) key += str(x) + ",";
  std::string& known = shapes_[key];
  if (!known.empty()) return known;
  for (const Extent& x : e) {
    if (x.fixed()) {
      run.push_back(x.offset);
      continue;
    }
    end_run();
    std::string size = batch();
    if (x.slope != 1) size = emit("Mul", {size, integers({x.slope})});
    if (x.offset != 0) size = emit("Add", {size, integers({x.offset})});
    parts.push_back(size);
  }
  end_run();
  return known = parts.size() == 1 ? parts[0] : emit("Concat", parts, {Attribute::of("axis", std::int64_t{0})});
}

std::string Exporter::reshaped(const std::string& x, const Extents& to) {
  std::vector<std::int64_t> sizes;
  bool zero = false;
  for (const Extent& e : to) {
    sizes.push_back(e.fixed() ? e.offset : -1);
    zero = zero || e.is(0);
  }
  const bool one_unknown = !zero && std::count(sizes.begin(), sizes.end(), -1) <= 1;
  std::vector<Attribute> attributes;
  if (zero) attributes.push_back(Attribute::of("allowzero", std::int64_t{1}));
  return emit("Reshape", {x, one_unknown ? integers(sizes) : shape_value(to)}, attributes);
}

std::string Exporter::expanded(const std::string& source, const Extents& to) {
  return emit("Expand", {source, shape_value(to)});
}

std::string Exporter::cast(const std::string& x, DType to) {
  return emit("Cast", {x}, {Attribute::of("to", static_cast<std::int64_t>(proto::elem_of(to)))});
}

// ---- Layouts -------------------------------------------------------------------------------------------------------

std::string Exporter::plain(ir::Value v) {
  Named& n = slot(v);
  if (!n.plain.empty()) return n.plain;
  if (n.weight != nullptr) {
    shared_.main->initializers.emplace_back(fresh(n.weight_name), *n.weight);
    return n.plain = shared_.main->initializers.back().first;
  }
  if (!n.channels_first.empty())
    return n.plain = emit("Transpose", {n.channels_first}, {Attribute::of("perm", to_channels_last(rank(v)))});
  if (!n.source.empty()) return n.plain = expanded(n.source, extents(v));
  throw std::logic_error("export_onnx: a value was used before it was made");
}

std::string Exporter::channels_first(ir::Value v) {
  Named& n = slot(v);
  if (!n.channels_first.empty()) return n.channels_first;
  const std::string from = plain(v);
  return slot(v).channels_first = emit("Transpose", {from}, {Attribute::of("perm", to_channels_first(rank(v)))});
}

proto::ValueInfo Exporter::info(ir::Value v, const std::string& name, bool first) const {
  proto::ValueInfo out{name, static_cast<int>(proto::elem_of(type(v).dtype)), true, {}};
  const Extents sizes = extents(v);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Extent& e = sizes[first ? static_cast<std::size_t>(to_channels_first(rank(v))[i]) : i];
    out.dims.push_back(e.fixed() ? proto::Dim{e.offset, ""} : proto::Dim{-1, str(e)});
  }
  return out;
}

void Exporter::finish(ir::Value v, const std::string& name, bool first) {
  emit("Identity", {first ? channels_first(v) : plain(v)}, {}, name);
  out_.outputs.push_back(info(v, name, first));
}

// ---- Elementwise operands ------------------------------------------------------------------------------------------

bool Exporter::prefers_channels_first(std::span<const ir::Value> inputs) const {
  bool some = false;
  for (const ir::Value v : inputs) {
    const auto& outputs = values_[v.node];
    if (outputs.empty()) continue;
    const Named& n = outputs[v.output];
    some = some || (!n.channels_first.empty() && n.plain.empty());
  }
  return some;
}

// A source of a broadcast to [N, s.., C] that lies along one axis, moved to where that axis is in [N, C, s..]; "" when
// it takes more than a reshape.
std::string Exporter::channels_first_source(const Named& n, int to_rank) {
  Extents padded(static_cast<std::size_t>(to_rank), Extent{0, 1});
  std::copy(n.source_extents.rbegin(), n.source_extents.rend(), padded.rbegin());
  int axis = -1;
  for (int d = 0; d < to_rank; ++d) {
    if (padded[static_cast<std::size_t>(d)].is(1)) continue;
    if (axis >= 0) return {};
    axis = d;
  }
  if (axis < 0) return n.source_extents.empty() ? n.source : reshaped(n.source, Extents{});
  Extents moved;
  for (const std::int64_t d : to_channels_first(to_rank)) moved.push_back(padded[static_cast<std::size_t>(d)]);
  return reshaped(n.source, moved);
}

// Names whose broadcast has the extents of the result.
std::vector<std::string> Exporter::elementwise_operands(std::span<const ir::Value> inputs, const Extents& result,
                                                        bool first) {
  std::vector<std::string> names;
  bool whole = result.empty();
  Extents reached(result.size(), Extent{0, 1});
  for (const ir::Value v : inputs) {
    Named& n = slot(v);
    const bool lazy = n.plain.empty() && n.channels_first.empty() && !n.source.empty();
    std::string name = !lazy ? (first ? channels_first(v) : plain(v))
                             : (first ? channels_first_source(n, static_cast<int>(result.size())) : n.source);
    if (name.empty()) name = channels_first(v);
    if (!lazy || !slot(v).channels_first.empty()) whole = true;
    for (std::size_t k = 0; lazy && k < n.source_extents.size(); ++k)
      if (!n.source_extents[n.source_extents.size() - 1 - k].is(1))
        reached[reached.size() - 1 - k] = n.source_extents[n.source_extents.size() - 1 - k];
    names.push_back(name);
  }
  if (!whole && reached != result) names[0] = first ? channels_first(inputs[0]) : plain(inputs[0]);
  return names;
}

}  // namespace bp::onnx
