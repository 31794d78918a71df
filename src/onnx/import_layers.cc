// ONNX's layers: convolutions, pools, norms, dropout, resizing, recurrent layers and losses.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "bp/scan.h"
#include "onnx/importer.h"
#include "onnx/resize.h"

namespace bp::onnx {

// One function an operator, or a family; a struct, so that their names are its own.
struct LayerImport {
  // ---- windows -----------------------------------------------------------------------------------------------------

  static Tensor channels_last(const Tensor& x) {
    Axes p{0};
    for (int d = 2; d < x.rank(); ++d) p.push_back(d);
    p.push_back(1);
    return transpose(x, p);
  }
  static Tensor channels_first(const Tensor& x) {
    Axes p{0, x.rank() - 1};
    for (int d = 1; d < x.rank() - 1; ++d) p.push_back(d);
    return transpose(x, p);
  }
  // [out, in, k..] to [k.., in, out].
  static Tensor kernel_last(const Tensor& w) {
    Axes p;
    for (int d = 2; d < w.rank(); ++d) p.push_back(d);
    p.push_back(1);
    p.push_back(0);
    return transpose(w, p);
  }

  struct Window {
    Ints64 kernel, stride, dilation, low, high;
    Ints64 beyond;  // of `high`, what only ceil_mode adds
  };
  static Window window_of(const Call& c, const Tensor& x, const Ints64& kernel) {
    const std::size_t n = kernel.size();
    if (x.rank() != static_cast<int>(n) + 2 || n < 1 || n > 3)
      c.refuse(
          fmt::format("expected an input of one to three dimensions beside batch and channels, got {}", x.shape()));
    Window w{kernel,
             c.integers("strides", Ints64(n, 1)),
             c.integers("dilations", Ints64(n, 1)),
             Ints64(n, 0),
             Ints64(n, 0),
             Ints64(n, 0)};
    const Ints64 pads = c.integers("pads", Ints64(2 * n, 0));
    if (w.stride.size() != n || w.dilation.size() != n || pads.size() != 2 * n)
      c.refuse("strides, dilations or pads do not fit the kernel");
    for (const Ints64& sizes : {w.kernel, w.stride, w.dilation, pads})
      for (const std::int64_t v : sizes)
        if (too_large(v)) c.refuse(fmt::format("a window size of {}", v));
    const std::string automatic = c.text("auto_pad", "NOTSET");
    for (std::size_t d = 0; d < n; ++d) {
      if (w.stride[d] < 1 || w.dilation[d] < 1 || w.kernel[d] < 1)
        c.refuse("a stride, dilation or kernel size below 1");
      const std::int64_t in = x.shape()[static_cast<int>(d) + 2], reach = w.dilation[d] * (w.kernel[d] - 1) + 1;
      if (automatic == "NOTSET") {
        w.low[d] = pads[d], w.high[d] = pads[n + d];
      } else if (automatic != "VALID") {
        const std::int64_t out = (in + w.stride[d] - 1) / w.stride[d];
        const std::int64_t all = std::max<std::int64_t>(0, (out - 1) * w.stride[d] + reach - in);
        w.low[d] = automatic == "SAME_LOWER" ? all - all / 2 : all / 2;
        w.high[d] = all - w.low[d];
      }
      if (c.integer("ceil_mode", 0) != 0) {
        const std::int64_t room = in + w.low[d] + w.high[d] - reach;
        w.beyond[d] = (w.stride[d] - room % w.stride[d]) % w.stride[d];
        w.high[d] += w.beyond[d];
      }
    }
    return w;
  }
  static Ints64 kernel_shape(const Call& c, const Tensor& w) {
    if (w.rank() < 3) c.refuse(fmt::format("expected a kernel [out, in, k..], got {}", w.shape()));
    return c.integers("kernel_shape", Ints64(w.shape().begin() + 2, w.shape().end()));
  }

  static Tensors convolution(const Call& c) {
    const Tensor &x = c.at(0), &w = c.at(1);
    if (x.rank() < 3 || w.rank() != x.rank())
      c.refuse(fmt::format("expected a kernel of rank {}, got {}", x.rank(), w.shape()));
    const Window win = window_of(c, x, kernel_shape(c, w));
    Tensor y = conv(channels_last(x), kernel_last(w),
                    {.stride = win.stride,
                     .padding = win.low,
                     .padding_high = win.high,
                     .dilation = win.dilation,
                     .groups = c.integer("group", 1)});
    if (c.has(2)) y = y + c.at(2);
    return {channels_first(y)};
  }

  static Tensors transposed_convolution(const Call& c) {
    const Tensor &x = c.at(0), &w = c.at(1);
    const Ints64 kernel = kernel_shape(c, w);
    Window win = window_of(c, x, kernel);
    const std::size_t n = kernel.size();
    const Ints64 rest = c.integers("output_padding", Ints64(n, 0)), wanted = c.integers("output_shape");
    const Ints64 pads = c.integers("pads", Ints64(2 * n, 0));
    const std::string automatic = c.text("auto_pad", "NOTSET");
    if (rest.size() != n || (!wanted.empty() && wanted.size() < n))
      c.refuse("output_padding or output_shape do not fit the kernel");
    Ints64 spatial(n, 0);
    for (std::size_t d = 0; d < n; ++d) {
      const std::int64_t in = x.shape()[static_cast<int>(d) + 2], reach = win.dilation[d] * (win.kernel[d] - 1) + 1;
      const std::int64_t whole = (in - 1) * win.stride[d] + rest[d] + reach;
      win.low[d] = automatic == "NOTSET" ? pads[d] : 0, win.high[d] = automatic == "NOTSET" ? pads[n + d] : 0;
      spatial[d] = !wanted.empty()                 ? wanted[wanted.size() - n + d]
                   : automatic.starts_with("SAME") ? in * win.stride[d]
                                                   : whole - win.low[d] - win.high[d];
      if (!wanted.empty() || automatic.starts_with("SAME")) {
        const std::int64_t cut = whole - spatial[d];
        win.low[d] = cut < 0 ? 0 : automatic == "SAME_UPPER" ? cut / 2 : cut - cut / 2;
        win.high[d] = cut - win.low[d];
      }
    }
    return {finish_transposed(c, x, w, win, spatial)};
  }
  // What lies beyond the last window is zero: the whole is made, then cut (and padded where a padding is negative).
  static Tensor finish_transposed(const Call& c, const Tensor& x, const Tensor& w, const Window& win,
                                  const Ints64& spatial) {
    Ints64 full, low{0}, high{0};
    for (std::size_t d = 0; d < spatial.size(); ++d) {
      const std::int64_t in = x.shape()[static_cast<int>(d) + 2];
      full.push_back((in - 1) * win.stride[d] + win.dilation[d] * (win.kernel[d] - 1) + 1);
      low.push_back(-win.low[d]);
      high.push_back(spatial[d] + win.low[d] - full.back());
    }
    low.push_back(0), high.push_back(0);
    // w is [C, M / groups, k..]: of the convolution whose transpose this is, out and in.
    Tensor y = conv_transpose(channels_last(x), kernel_last(w), full,
                              {.stride = win.stride, .dilation = win.dilation, .groups = c.integer("group", 1)});
    y = pad(y, low, high);
    if (c.has(2)) y = y + c.at(2);
    return channels_first(y);
  }

  static Tensor padded(const Tensor& x, const Window& w, double value, bool beyond_only = false) {
    Ints64 low{0}, high{0};
    for (std::size_t d = 0; d < w.low.size(); ++d) {
      low.push_back(beyond_only ? 0 : w.low[d]);
      high.push_back(beyond_only ? w.beyond[d] : w.high[d]);
    }
    low.push_back(0), high.push_back(0);
    return pad(x, low, high, value);
  }

  static Tensors max_pooling(const Call& c) {
    if (c.wants(1)) c.refuse("the output Indices is not supported");
    const Tensor& x = c.at(0);
    const Window w = window_of(c, x, c.integers("kernel_shape"));
    const Tensor real = is_float(x.dtype()) ? x : cast(x, f32);
    const Tensor y = max_pool(padded(channels_last(real), w, -std::numeric_limits<double>::infinity()),
                              PoolOptions{.window = w.kernel, .stride = w.stride, .dilation = w.dilation});
    return {cast(channels_first(y), x.dtype())};
  }

  static Tensors average_pooling(const Call& c) {
    const Tensor& x = c.at(0);
    const Window w = window_of(c, x, c.integers("kernel_shape"));
    const PoolOptions options{.window = w.kernel, .stride = w.stride};
    const Tensor last = channels_last(x), y = avg_pool(padded(last, w, 0), options);
    const auto none = [](const Ints64& v) { return std::all_of(v.begin(), v.end(), [](auto n) { return n == 0; }); };
    const bool count_pads = c.integer("count_include_pad", 0) != 0;
    if (none(w.beyond) && (count_pads || (none(w.low) && none(w.high)))) return {channels_first(y)};
    // The share of each window that counts.
    Shape shape = last.shape();
    shape[0] = 1, shape[shape.rank() - 1] = 1;
    Tensor counted = ones(shape, x.dtype());
    if (count_pads) {
      Window pads = w;
      for (std::size_t d = 0; d < pads.high.size(); ++d) pads.high[d] -= pads.beyond[d];
      counted = padded(padded(counted, pads, 1), w, 0, true);
    } else {
      counted = padded(counted, w, 0);
    }
    return {channels_first(y / avg_pool(counted, options))};
  }

  static Axes spatial_axes(const Tensor& x) {
    Axes axes;
    for (int d = 2; d < x.rank(); ++d) axes.push_back(d);
    return axes;
  }
  static Tensors global_average(const Call& c) { return {mean(c.at(0), spatial_axes(c.at(0)), true)}; }
  static Tensors global_max(const Call& c) { return {max(c.at(0), spatial_axes(c.at(0)), true)}; }

  // ---- norms -------------------------------------------------------------------------------------------------------

  // [C] beside [N, C, s..].
  static Tensor beside(const Tensor& per_channel, const Tensor& x) {
    Shape s{per_channel.numel()};
    for (int d = 2; d < x.rank(); ++d) s.push_back(1);
    return reshape(per_channel, s);
  }
  static Tensors batch_norm(const Call& c) {
    const Tensor& x = c.at(0);
    const double epsilon = c.number("epsilon", 1e-5), momentum = c.number("momentum", 0.9);
    const bool training = c.integer("training_mode", 0) != 0 || current_mode() == Mode::train;
    Tensor m = c.at(3), v = c.at(4), running_m = m, running_v = v;
    if (training) {
      Axes axes = spatial_axes(x);
      axes.insert(axes.begin(), 0);
      m = mean(x, axes), v = var(x, axes);
      running_m = c.at(3) * momentum + cast(m, c.at(3).dtype()) * (1 - momentum);
      running_v = c.at(4) * momentum + cast(v, c.at(4).dtype()) * (1 - momentum);
      if (current_mode() == Mode::train) {
        c.host.update(c.node.inputs[3], running_m);
        c.host.update(c.node.inputs[4], running_v);
      }
    }
    const Tensor scale = c.at(1) * rsqrt(v + epsilon);
    const Tensor y = (x - beside(m, x)) * beside(scale, x) + beside(c.at(2), x);
    return {cast(y, x.dtype()), running_m, running_v};
  }
  static Tensors instance_norm(const Call& c) {
    const Tensor &x = c.at(0), m = mean(x, spatial_axes(x), true), v = var(x, spatial_axes(x), true);
    return {(x - m) * rsqrt(v + c.number("epsilon", 1e-5)) * beside(c.at(1), x) + beside(c.at(2), x)};
  }
  static Tensors layer_norm(const Call& c) {
    const Tensor& x = c.at(0);
    Axes axes;
    for (int d = c.axis(c.integer("axis", -1), x.rank()); d < x.rank(); ++d) axes.push_back(d);
    const Tensor m = mean(x, axes, true), inverse = rsqrt(var(x, axes, true) + c.number("epsilon", 1e-5));
    Tensor y = (x - m) * inverse * c.at(1);
    if (c.has(2)) y = y + c.at(2);
    return {y, m, inverse};
  }
  static Tensors local_response_norm(const Call& c) {
    const Tensor& x = c.at(0);
    const std::int64_t size = c.integer("size"), before = (size - 1) / 2;
    if (x.rank() < 2 || size < 1 || size > 4096) c.refuse(fmt::format("a size of {} for an input {}", size, x.shape()));
    Ints64 low(static_cast<std::size_t>(x.rank()), 0), high = low;
    low[1] = before, high[1] = size - 1 - before;
    const Tensor squares = pad(square(x), low, high);
    Tensor sum;
    for (std::int64_t k = 0; k < size; ++k) {
      const Tensor part = slice(squares, 1, k, k + x.size(1));
      sum = sum.defined() ? sum + part : part;
    }
    const double alpha = c.number("alpha", 1e-4) / static_cast<double>(size);
    return {x * pow(c.number("bias", 1) + alpha * sum, -c.number("beta", 0.75))};
  }
  static Tensors mean_variance_norm(const Call& c) {
    const Tensor& x = c.at(0);
    Axes axes;
    for (const std::int64_t a : c.integers("axes", {0, 2, 3})) axes.push_back(c.axis(a, x.rank()));
    return {(x - mean(x, axes, true)) / (sqrt(var(x, axes, true)) + 1e-9)};
  }
  static Tensors lp_norm(const Call& c) {
    const Tensor& x = c.at(0);
    const int axis = c.axis(c.integer("axis", -1), x.rank());
    return {x / (c.integer("p", 2) == 1 ? sum(bp::abs(x), {axis}, true) : norm(x, {axis}, true))};
  }

  static Tensors dropout(const Call& c) {
    const Tensor& x = c.at(0);
    const double ratio = c.has(1) ? c.values<double>(1).at(0) : c.number("ratio", 0.5);
    if (!(ratio >= 0 && ratio < 1)) c.refuse(fmt::format("expected a ratio from 0 to 1, got {}", ratio));
    const bool train = current_mode() == Mode::train, asked = c.has(2) && c.values<double>(2).at(0) != 0;
    if (asked && !train && ratio != 0)
      c.refuse(
          "training_mode asks for random numbers where the model is evaluated: export it for inference, or call it in "
          "train mode");
    if (ratio == 0 || !train) return {x, cast(ones(x.shape()), DType::boolean)};
    std::uint64_t place = 1469598103934665603ull;  // FNV-1a of the name: draws of two nodes differ
    for (const char letter : c.node.outputs[0]) place = (place ^ static_cast<unsigned char>(letter)) * 1099511628211ull;
    const Tensor kept = random_bernoulli(c.host.random_state(), x.shape(), 1 - ratio, place);
    return {select(kept, x / (1 - ratio), zeros_like(x)), kept};
  }

  // ---- resizing ----------------------------------------------------------------------------------------------------

  static Tensors resize(const Call& c) {
    Tensor x = c.at(0);
    const bool old = c.opset < 11 || c.node.op == "Upsample";
    const std::size_t scales_at = old ? 1 : 2;
    const bool has_sizes = !old && c.has(3) && c.in[3].numel() > 0;
    std::vector<double> scales, roi;
    Ints64 sizes;
    if (has_sizes)
      sizes = c.values(3);
    else if (c.has(scales_at))
      scales = c.values<double>(scales_at);
    else
      for (const float s : c.numbers("scales")) scales.push_back(static_cast<double>(s));
    if (!old && c.has(1) && c.in[1].numel() > 0) roi = c.values<double>(1);
    const auto rank = static_cast<std::size_t>(x.rank());
    if ((has_sizes ? sizes.size() : scales.size()) != rank) c.refuse("expected a scale or size for each dimension");
    Tensor outside;
    const DType dtype = x.dtype();
    if (!is_float(dtype)) x = cast(x, f32);
    for (std::size_t d = 0; d < rank; ++d) {
      ResizeAxis a{.in = c.at(0).shape()[static_cast<int>(d)]};
      a.scale = has_sizes ? static_cast<double>(sizes[d]) / static_cast<double>(a.in) : scales[d];
      a.out = has_sizes ? sizes[d] : static_cast<std::int64_t>(std::floor(a.scale * static_cast<double>(a.in)));
      if (a.in < 1 || a.out < 0 || too_large(a.out) || a.in * a.out > 8 * kMostPlaces)
        c.refuse(fmt::format("a size of {} from {}", a.out, a.in));
      a.mode = c.text("mode", "nearest");
      a.coordinates = c.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
      a.nearest = c.text("nearest_mode", old ? "floor" : "round_prefer_floor");
      a.cubic = c.number("cubic_coeff_a", -0.75);
      a.exclude_outside = c.integer("exclude_outside", 0) != 0;
      if (a.coordinates == "tf_crop_and_resize" && roi.size() == 2 * rank)
        a.roi_start = roi[d], a.roi_end = roi[rank + d];
      if (a.out == a.in && a.scale == 1 && a.coordinates != "tf_crop_and_resize") continue;
      resize_along(x, static_cast<int>(d), resize_matrix(a), outside);
    }
    if (outside.defined())
      x = select(broadcast_to(outside, x.shape()), weak_scalar(c.number("extrapolation_value", 0), x), x);
    return {cast(x, dtype)};
  }
  static void resize_along(Tensor& x, int axis, const ResizeMatrix& m, Tensor& outside) {
    const std::int64_t in = x.size(axis), out = static_cast<std::int64_t>(m.outside.size());
    const Tensor weights = cast(Tensor::from(m.weights, Shape{out, in}), x.dtype());
    Axes p;
    for (int d = 0; d < x.rank(); ++d)
      if (d != axis) p.push_back(d);
    p.push_back(axis);
    Axes back(p.size());
    for (std::size_t k = 0; k < p.size(); ++k) back[static_cast<std::size_t>(p[k])] = static_cast<int>(k);
    x = transpose(matmul(transpose(x, p), weights, false, true), back);
    if (std::none_of(m.outside.begin(), m.outside.end(), [](bool b) { return b; })) return;
    Shape row;
    for (int d = 0; d < x.rank(); ++d) row.push_back(d == axis ? out : 1);
    const Tensor here =
        cast(Tensor::from(std::vector<std::uint8_t>(m.outside.begin(), m.outside.end()), row), DType::boolean);
    outside = outside.defined() ? logical_or(outside, here) : here;
  }

  // ---- recurrent ---------------------------------------------------------------------------------------------------

  // Weights of one direction, transposed: W [in, gates H], R [H, gates H], biases [gates H].
  struct Direction {
    Tensor w, r, wb, rb;
    std::array<Tensor, 3> peephole;  // of i, o, f
    std::int64_t hidden;
    bool linear_before_reset;
    Tensor gate(const Tensor& z, std::int64_t k) const { return slice(z, 1, k * hidden, (k + 1) * hidden); }
    Tensor rows(const Tensor& r_all, std::int64_t k) const { return slice(r_all, 1, k * hidden, (k + 1) * hidden); }
  };
  static Tensor of_direction(const Tensor& x, std::int64_t d) { return bp::squeeze(slice(x, 0, d, d + 1), 0); }

  static Tensors lstm_step(const Direction& d, const Tensor& x, std::span<const Tensor> s) {
    const Tensor z = matmul(x, d.w) + matmul(s[0], d.r) + d.wb + d.rb;
    const auto with = [&](std::int64_t k, std::size_t p, const Tensor& cell) {
      return d.peephole[p].defined() ? d.gate(z, k) + d.peephole[p] * cell : d.gate(z, k);
    };
    const Tensor i = sigmoid(with(0, 0, s[1])), f = sigmoid(with(2, 2, s[1]));
    const Tensor cell = f * s[1] + i * tanh(d.gate(z, 3)), o = sigmoid(with(1, 1, cell));
    return {o * tanh(cell), cell};
  }
  static Tensors gru_step(const Direction& d, const Tensor& x, std::span<const Tensor> s) {
    const Tensor zx = matmul(x, d.w) + d.wb, &h = s[0];
    const auto from_h = [&](std::int64_t k, const Tensor& state) {
      return matmul(state, d.rows(d.r, k)) + slice(d.rb, 0, k * d.hidden, (k + 1) * d.hidden);
    };
    const Tensor z = sigmoid(d.gate(zx, 0) + from_h(0, h)), r = sigmoid(d.gate(zx, 1) + from_h(1, h));
    const Tensor n = tanh(d.gate(zx, 2) + (d.linear_before_reset ? r * from_h(2, h) : from_h(2, r * h)));
    return {(1.0 - z) * n + z * h};
  }
  static Tensors rnn_step(const Direction& d, const Tensor& x, std::span<const Tensor> s) {
    return {tanh(matmul(x, d.w) + matmul(s[0], d.r) + d.wb + d.rb)};
  }

  using Step = Tensors (*)(const Direction&, const Tensor&, std::span<const Tensor>);
  template <Step F, int Gates, int States> static Tensors recurrent(const Call& c) {
    check_recurrent(c);
    const bool batch_first = c.integer("layout", 0) != 0;
    const Tensor x = batch_first ? transpose(c.at(0), {1, 0, 2}) : c.at(0);  // [T, N, in]
    const std::int64_t hidden = c.at(2).size(2), directions = c.at(1).size(0), n = x.size(1);
    Tensor mask;
    if (c.has(4)) mask = less(iota({x.size(0), 1, 1}, 0), reshape(cast(c.at(4), i64), {1, -1, 1}));
    std::vector<Tensors> ys(1), lasts(States);
    for (std::int64_t d = 0; d < directions; ++d) {
      Tensors start;
      for (std::size_t k = 0; k < States; ++k) start.push_back(start_of(c, 5 + k, d, batch_first, {n, hidden}));
      const bool backward = d == 1 || c.text("direction", "forward") == "reverse";
      const Scanned out = run_direction(F, direction_of(c, d, Gates, hidden), x, mask, start, backward);
      ys[0].push_back(out.ys[0]);
      for (std::size_t k = 0; k < States; ++k) lasts[k].push_back(out.carry[k]);
    }
    Tensors out{stack(ys[0], 1)};  // [T, directions, N, H]
    if (batch_first) out[0] = transpose(out[0], {2, 0, 1, 3});
    for (const Tensors& last : lasts) out.push_back(stack(last, batch_first ? 1 : 0));
    return out;
  }
  static Tensor start_of(const Call& c, std::size_t input, std::int64_t d, bool batch_first, const Shape& shape) {
    if (!c.has(input)) return zeros(shape, c.at(0).dtype());
    const Tensor given = batch_first ? transpose(c.at(input), {1, 0, 2}) : c.at(input);
    return of_direction(given, d);
  }
  static Scanned run_direction(Step step, const Direction& d, const Tensor& x, const Tensor& mask, const Tensors& start,
                               bool backward) {
    Tensors xs{x};
    if (mask.defined()) xs.push_back(mask);
    return scan(
        [&](std::span<const Tensor> s, std::span<const Tensor> now) -> Scanned {
          Tensors next = step(d, now[0], s);
          if (now.size() == 1) return {next, {next[0]}};
          const Tensor y = select(now[1], next[0], zeros_like(next[0]));
          for (std::size_t k = 0; k < next.size(); ++k) next[k] = select(now[1], next[k], s[k]);
          return {next, {y}};
        },
        start, xs, {.reverse = backward});
  }
  static Direction direction_of(const Call& c, std::int64_t d, int gates, std::int64_t hidden) {
    Direction out;
    const Tensor nothing = zeros({gates * hidden}, c.at(0).dtype());
    out.w = transpose(of_direction(c.at(1), d));
    out.r = transpose(of_direction(c.at(2), d));
    out.wb = c.has(3) ? slice(of_direction(c.at(3), d), 0, 0, gates * hidden) : nothing;
    out.rb = c.has(3) ? slice(of_direction(c.at(3), d), 0, gates * hidden, 2 * gates * hidden) : nothing;
    if (c.has(7))
      for (std::size_t k = 0; k < 3; ++k) {
        const auto at = static_cast<std::int64_t>(k) * hidden;
        out.peephole[k] = slice(of_direction(c.at(7), d), 0, at, at + hidden);
      }
    out.hidden = hidden;
    out.linear_before_reset = c.integer("linear_before_reset", 0) != 0;
    return out;
  }
  static void check_recurrent(const Call& c) {
    if (c.at(0).rank() != 3 || c.at(1).rank() != 3 || c.at(2).rank() != 3) c.refuse("expected X, W and R of rank 3");
    if (c.find("clip") != nullptr) c.refuse("the attribute clip is not supported");
    if (c.integer("input_forget", 0) != 0) c.refuse("the attribute input_forget is not supported");
    static const std::array<std::vector<std::string>, 3> kUsual{
        {{"Tanh"}, {"Sigmoid", "Tanh"}, {"Sigmoid", "Tanh", "Tanh"}}};
    const std::vector<std::string> given = c.texts("activations");
    const std::vector<std::string>& usual = kUsual[c.node.op == "RNN" ? 0 : c.node.op == "GRU" ? 1 : 2];
    for (std::size_t i = 0; i < given.size(); ++i)
      if (given[i] != usual[i % usual.size()]) c.refuse(fmt::format("the activation {} is not supported", given[i]));
  }

  // ---- losses ------------------------------------------------------------------------------------------------------

  // log_p [N, C, d..], labels [N, d..].
  static Tensor likelihood_loss(const Call& c, const Tensor& log_p, const Tensor& labels) {
    const Tensor ids = cast(labels, i64);
    const bool ignores = c.find("ignore_index") != nullptr;
    const auto ignored = static_cast<double>(c.integer("ignore_index", 0));
    const Tensor counts = ignores ? not_equal(ids, weak_scalar(ignored, ids)) : equal(ids, ids);
    const Tensor safe = select(counts, ids, zeros_like(ids));
    const Tensor taken = bp::squeeze(take_along(log_p, bp::unsqueeze(safe, 1), 1), 1);
    Tensor weight = cast(counts, log_p.dtype());
    if (c.has(2)) weight = weight * gather(c.at(2), safe, 0);
    const Tensor loss = -taken * weight;
    const std::string how = c.text("reduction", "mean");
    if (how == "none") return loss;
    return how == "sum" ? sum(loss) : sum(loss) / sum(weight);
  }
  static Tensors nll_loss(const Call& c) { return {likelihood_loss(c, c.at(0), c.at(1))}; }
  static Tensors softmax_loss(const Call& c) {
    const Tensor log_p = log_softmax(c.at(0), 1);
    return {likelihood_loss(c, log_p, c.at(1)), log_p};
  }

  // ---- windows of signals ------------------------------------------------------------------------------------------

  // a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N)
  static Tensors cosine_window(const Call& c, double a0, double a1, double a2) {
    const std::int64_t n = c.values(0).at(0);
    if (n < 1 || n > (1 << 24)) c.refuse(fmt::format("a window of {} elements", n));
    const auto whole = static_cast<double>(c.integer("periodic", 1) != 0 ? n : n - 1);
    const Tensor angle = arange(n, f64) * (2 * std::numbers::pi / whole);
    const DType t = proto::dtype_of_elem(static_cast<int>(c.integer("output_datatype", 1)), "[onnx] " + c.node.op);
    return {cast(a0 - a1 * cos(angle) + a2 * cos(2.0 * angle), t)};
  }
  static Tensors hann(const Call& c) { return cosine_window(c, 0.5, 0.5, 0); }
  static Tensors hamming(const Call& c) { return cosine_window(c, 25.0 / 46, 1 - 25.0 / 46, 0); }
  static Tensors blackman(const Call& c) { return cosine_window(c, 0.42, 0.5, 0.08); }
};

const Builders& layer_builders() {
  using L = LayerImport;
  static const Builders kTable{
      {"AveragePool", L::average_pooling},
      {"BatchNormalization", L::batch_norm},
      {"BlackmanWindow", L::blackman},
      {"Conv", L::convolution},
      {"ConvTranspose", L::transposed_convolution},
      {"Dropout", L::dropout},
      {"GRU", L::recurrent<L::gru_step, 3, 1>},
      {"GlobalAveragePool", L::global_average},
      {"GlobalMaxPool", L::global_max},
      {"HammingWindow", L::hamming},
      {"HannWindow", L::hann},
      {"InstanceNormalization", L::instance_norm},
      {"LRN", L::local_response_norm},
      {"LSTM", L::recurrent<L::lstm_step, 4, 2>},
      {"LayerNormalization", L::layer_norm},
      {"LpNormalization", L::lp_norm},
      {"MaxPool", L::max_pooling},
      {"MeanVarianceNormalization", L::mean_variance_norm},
      {"NegativeLogLikelihoodLoss", L::nll_loss},
      {"RNN", L::recurrent<L::rnn_step, 1, 1>},
      {"Resize", L::resize},
      {"SoftmaxCrossEntropyLoss", L::softmax_loss},
      {"Upsample", L::resize},
  };
  return kTable;
}

}  // namespace bp::onnx
