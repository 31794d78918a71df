// The model of the benchmark case resnet20: He et al., "Deep residual learning for image recognition", CVPR 2016,
// section 4.2, for 32 x 32 images, with projection shortcuts. Used by cases.h.
#pragma once

#include <optional>
#include <vector>

#include "bp/nn.h"
#include "bp/ops.h"

namespace bench {

// A convolution without a bias, and its batch norm.
struct ConvNorm {
  bp::nn::Conv2d conv;
  bp::nn::BatchNorm norm;
  ConvNorm(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride)
      : conv(in, out, kernel, {.stride = stride, .padding = kernel / 2, .bias = false}), norm(out) {}
  bp::Tensor operator()(const bp::Tensor& x) const { return norm(conv(x)); }
  BP_FIELDS(ConvNorm, conv, norm)
};

struct ResBlock {
  ConvNorm first, second;
  std::optional<ConvNorm> shortcut;
  ResBlock(std::int64_t in, std::int64_t out, std::int64_t stride) : first(in, out, 3, stride), second(out, out, 3, 1) {
    if (stride != 1 || in != out) shortcut.emplace(in, out, 1, stride);
  }
  bp::Tensor operator()(const bp::Tensor& x) const {
    return bp::relu(second(bp::relu(first(x))) + (shortcut ? (*shortcut)(x) : x));
  }
  BP_FIELDS(ResBlock, first, second, shortcut)
};

// x [N, 32, 32, 3] -> [N, 10]
struct ResNet20 {
  ConvNorm stem{3, 16, 3, 1};
  std::vector<ResBlock> blocks;
  bp::nn::GlobalAvgPool pool;
  bp::nn::Linear head{64, 10};
  ResNet20() {
    std::int64_t in = 16;
    for (const std::int64_t out : {16, 32, 64})
      for (int k = 0; k < 3; ++k, in = out) blocks.emplace_back(in, out, k == 0 && out != 16 ? 2 : 1);
  }
  bp::Tensor operator()(const bp::Tensor& x) const {
    bp::Tensor h = bp::relu(stem(x));
    for (const ResBlock& block : blocks) h = block(h);
    return head(pool(h));
  }
  BP_FIELDS(ResNet20, stem, blocks, pool, head)
};

}  // namespace bench
