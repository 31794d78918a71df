// Random bits as machine code: Philox4x32-10 (Salmon and others, 2011) with one block of four words per 64-bit lane,
// bit for bit what base/random_word.h says.
#if defined(BP_MACHINE_CODE)
#include <cstddef>

#include "cpu/kernels/jit_coder.h"

namespace bp::cpu {

namespace {

using Vec = JitVectors::Vec;

// Eight blocks: words 0 to 3, each in the lower half of its lane, whatever the upper halves hold.
struct Blocks {
  Vec word[4];
};

void round(JitVectors& j, Blocks& b, const Vec& first, const Vec& second, const Xbyak::Address& key0,
           const Xbyak::Address& key1) {
  const Vec p0 = j.fresh(), p1 = j.fresh(), w0 = j.fresh(), w2 = j.fresh();
  j.vpmuludq(p0.zmm(), b.word[0].zmm(), first.zmm());
  j.vpmuludq(p1.zmm(), b.word[2].zmm(), second.zmm());
  j.vpsrlq(w0.zmm(), p1.zmm(), 32);
  j.vpsrlq(w2.zmm(), p0.zmm(), 32);
  constexpr std::uint8_t kXor = 0x96;
  j.vpternlogd(w0.zmm(), b.word[1].zmm(), key0, kXor);
  j.vpternlogd(w2.zmm(), b.word[3].zmm(), key1, kXor);
  b = {{w0, p1, w2, p0}};
}

}  // namespace

RunCoder::Vec RunCoder::random(const LoopTransfer& t) {
  if (drawn_[t.memory].empty()) draw(t, part_ == Part::main ? 2 : 1);
  std::vector<Vec>& left = drawn_[t.memory];
  const Vec bits = left.back();
  left.pop_back();
  if (part_ != Part::main) left.clear();
  const Vec v = j_.fresh();
  j_.vpsrld(v.zmm(), bits.zmm(), static_cast<std::uint8_t>(32 - t.width));
  j_.vcvtdq2ps(v.zmm(), v.zmm());
  return v;
}

void RunCoder::draw(const LoopTransfer& t, int batches) {
  const auto state = [&](std::size_t offset) {
    const Base b = base(t.memory);
    return b.reg + b.offset + static_cast<int>(offset);
  };
  const Vec first = j_.loaded(0xD2511F53u), second = j_.loaded(0xCD9E8D57u);
  std::vector<Blocks> blocks;
  for (int k = 0; k < batches; ++k) {
    Blocks b{{j_.fresh(), j_.fresh(), j_.fresh(), j_.fresh()}};
    j_.vmovdqu64(b.word[0].zmm(), j_.ptr[state(offsetof(RandomState, blocks))]);
    j_.mov(j_.r11, j_.rax);
    j_.shr(j_.r11, 2);
    if (k > 0) j_.CodeGenerator::add(j_.r11, 8 * k);
    j_.vpbroadcastq(b.word[1].zmm(), j_.r11);
    j_.vpaddq(b.word[0].zmm(), b.word[0].zmm(), b.word[1].zmm());
    j_.vpsrlq(b.word[1].zmm(), b.word[0].zmm(), 32);
    for (std::size_t w : {0u, 1u})
      j_.vpbroadcastq(b.word[2 + w].zmm(), j_.ptr[state(offsetof(RandomState, counter) + 8 * w)]);
    blocks.push_back(std::move(b));
  }
  for (std::size_t r = 0; r < 10; ++r)  // the batches side by side, as a round is a chain of products
    for (Blocks& b : blocks) {
      const std::size_t key = offsetof(RandomState, keys) + 8 * r;
      round(j_, b, first, second, j_.ptr_b[state(key)], j_.ptr_b[state(key + 4)]);
    }
  j_.mov(j_.r11d, 0x5555);
  j_.kmovw(j_.k2, j_.r11d);
  std::vector<Vec>& out = drawn_[t.memory];
  for (std::size_t k = blocks.size(); k-- > 0;) {
    const Blocks& b = blocks[k];
    Vec pair[2] = {j_.fresh(), j_.fresh()};  // words 0 and 1, 2 and 3
    for (std::size_t i : {0u, 1u}) {
      j_.vpsllq(pair[i].zmm(), b.word[2 * i + 1].zmm(), 32);
      j_.vmovdqa32(pair[i].zmm() | j_.k2, b.word[2 * i].zmm());
    }
    const Vec low = j_.fresh(), high = j_.fresh();
    j_.vpunpckhqdq(high.zmm(), pair[0].zmm(), pair[1].zmm());
    j_.vpunpcklqdq(low.zmm(), pair[0].zmm(), pair[1].zmm());
    out.push_back(high);
    out.push_back(low);
  }
}

}  // namespace bp::cpu
#endif
