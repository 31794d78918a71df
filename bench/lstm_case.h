// The lstm case of the benchmark: an embedding, two LSTM layers, a linear map to the vocabulary. Included by cases.h.
#pragma once

#include "bp/bp.h"

namespace bench {

struct Lstm {
  static constexpr std::int64_t kVocabulary = 96, kWidth = 256;
  bp::Variable embedding{bp::zeros({kVocabulary, kWidth})};
  bp::nn::LSTM lstm{kWidth, kWidth, {.layers = 2}};
  bp::nn::Linear head{kWidth, kVocabulary};

  // ids [B, T] -> logits [B, T, vocabulary]
  bp::Tensor operator()(const bp::Tensor& ids) const { return head(lstm(bp::gather(embedding, ids))); }
  BP_FIELDS(Lstm, embedding, lstm, head)
};

}  // namespace bench
