// Product groups: a matmul or convolution with what is done to it before it is stored. Formed by the fuse pass, read by
// lowering.
#pragma once

#include "passes/partition.h"

namespace bp::passes {

// On singletons: a product and the bias, residual and activation that only it reads become one group of kind product.
// Its nodes: the product, then its chain of add and relu, tanh or sigmoid, with the views between and the broadcast of
// the bias. Only the last node is read from outside.
void attach_epilogues(const ir::Graph& g, Partition& p);

// result = activation(product + bias + residual).
struct ProductChain {
  ir::NodeId product = 0;
  ir::Value bias, residual;  // bias: the vector, before its broadcast
  bool has_bias = false, has_residual = false;
  ir::OpId activation = ir::OpId::input;  // relu, tanh, sigmoid; input: none
  ir::Value result;
};

// Of a group of kind product, or of a single product.
ProductChain product_chain(const ir::Graph& g, const Group& group);

}  // namespace bp::passes
