#include "cpu/kernels/jit_product.h"

#if defined(BP_MACHINE_CODE)
#include <xbyak/xbyak.h>

#include <map>
#include <mutex>

namespace bp::cpu {

namespace {

class ProductCoder : public Xbyak::CodeGenerator {
 public:
  explicit ProductCoder(const ProductCodeKey& key) : CodeGenerator(1 << 15), key_(key) {}

  std::span<const std::byte> make() {
    enter();
    sum_up();
    finish();
    vzeroupper();
    pop(rbp);
    pop(rbx);
    ret();
    return {reinterpret_cast<const std::byte*>(getCode()), getSize()};
  }

 private:
  static constexpr int kUnroll = 4;
  // How far ahead rows of B are asked for on the first pass: longer than memory takes, in cycles of a row's products.
  static constexpr int kRowsAhead = 16;
  static constexpr int kPanelRow = static_cast<int>(kTileColumns) * 4;

  Xbyak::Zmm sum(int r, int v) const { return Xbyak::Zmm(r * key_.vectors + v); }
  Xbyak::Zmm b(int v) const { return Xbyak::Zmm(28 + v); }
  Xbyak::Zmm x(int r) const { return Xbyak::Zmm(30 + r % 2); }
  bool partial(int v) const { return key_.masked && v + 1 == key_.vectors; }
  void load(const Xbyak::Zmm& to, const Xbyak::Address& from, int v) { vmovups(partial(v) ? to | k1 | T_z : to, from); }
  Xbyak::Address field(std::size_t offset) { return ptr[rdi + static_cast<int>(offset)]; }
  template <class F> void each(F f) {
    for (int r = 0; r < key_.rows; ++r)
      for (int v = 0; v < key_.vectors; ++v) f(r, v);
  }

  void enter() {
    push(rbx);
    push(rbp);
    mov(rsi, field(offsetof(ProductTile, a)));
    mov(rdx, field(offsetof(ProductTile, b)));
    mov(rcx, field(offsetof(ProductTile, k)));
    if (key_.first_pass) {
      mov(r8, field(offsetof(ProductTile, panel)));
      mov(rax, field(offsetof(ProductTile, b_step)));
      imul(rbx, rax, kRowsAhead);
    }
    if (key_.masked) {
      mov(r9, field(offsetof(ProductTile, mask)));
      kmovw(k1, r9d);
    }
    mov(r9, field(offsetof(ProductTile, c)));
    mov(r10, field(offsetof(ProductTile, source)));
    test(r10, r10);
    cmovz(r10, r9);
    mov(r11, field(offsetof(ProductTile, c_step)));
  }

  void sum_up() {
    each([&](int r, int v) { vpxord(sum(r, v), sum(r, v), sum(r, v)); });
    Xbyak::Label first, four, one, rest, done;
    mov(ebp, key_.rows);
    sub(rcx, kUnroll);
    jb(rest, T_NEAR);
    L(first);
    ask_for_row();
    for (int p = 0; p < kUnroll; ++p) products(p);
    advance(kUnroll);
    sub(rcx, kUnroll);
    jb(rest, T_NEAR);
    dec(ebp);
    jnz(first, T_NEAR);
    align(64);
    L(four);
    for (int p = 0; p < kUnroll; ++p) products(p);
    advance(kUnroll);
    sub(rcx, kUnroll);
    jae(four, T_NEAR);
    L(rest);
    add(rcx, kUnroll);
    jz(done, T_NEAR);
    L(one);
    products(0);
    advance(1);
    dec(rcx);
    jnz(one, T_NEAR);
    L(done);
  }

  // The next row of C and of what is added to it, so that they are near when the sums are done.
  void ask_for_row() {
    for (int v = 0; v < key_.vectors; ++v) prefetchw(ptr[r9 + 64 * v]);
    for (int v = 0; v < key_.vectors; ++v) prefetcht0(ptr[r10 + 64 * v]);
    add(r9, r11);
    add(r10, field(offsetof(ProductTile, source_step)));
  }

  // Row p behind the present one.
  void products(int p) {
    for (int v = 0; v < key_.vectors; ++v) {
      const int panel = p * kPanelRow + 64 * v;
      if (!key_.first_pass) {
        vmovups(b(v), ptr[rdx + panel]);
        continue;
      }
      load(b(v), ptr[rdx + 64 * v], v);
      vmovups(ptr[r8 + panel], b(v));
      prefetcht0(ptr[rdx + rbx + 64 * v]);
    }
    if (key_.first_pass) add(rdx, rax);
    for (int r = 0; r < key_.rows; ++r) {
      vbroadcastss(x(r), ptr[rsi + static_cast<int>(r * key_.a_row + p * key_.a_k) * 4]);
      for (int v = 0; v < key_.vectors; ++v) vfmadd231ps(sum(r, v), x(r), b(v));
    }
  }

  void advance(int rows) {
    add(rsi, static_cast<int>(rows * key_.a_k) * 4);
    add(key_.first_pass ? r8 : rdx, rows * kPanelRow);
  }

  void finish() {
    add_rows();
    add_bias();
    Xbyak::Label linear;
    cmp(qword[rdi + static_cast<int>(offsetof(ProductTile, relu))], 0);
    je(linear, T_NEAR);
    vpxord(x(0), x(0), x(0));
    each([&](int r, int v) { vmaxps(sum(r, v), x(0), sum(r, v)); });  // NaN, the second operand, stays
    L(linear);
    mov(rdx, field(offsetof(ProductTile, c)));
    for (int r = 0; r < key_.rows; ++r, add(rdx, r11))
      for (int v = 0; v < key_.vectors; ++v)
        vmovups(partial(v) ? ptr[rdx + 64 * v] | k1 : ptr[rdx + 64 * v], sum(r, v));
  }

  void add_rows() {
    Xbyak::Label none;
    mov(rdx, field(offsetof(ProductTile, source)));
    test(rdx, rdx);
    jz(none, T_NEAR);
    mov(rax, field(offsetof(ProductTile, source_step)));
    for (int r = 0; r < key_.rows; ++r, add(rdx, rax))
      for (int v = 0; v < key_.vectors; ++v) {
        load(b(v), ptr[rdx + 64 * v], v);
        vaddps(sum(r, v), sum(r, v), b(v));
      }
    L(none);
  }

  void add_bias() {
    Xbyak::Label none;
    mov(rdx, field(offsetof(ProductTile, bias)));
    test(rdx, rdx);
    jz(none, T_NEAR);
    for (int v = 0; v < key_.vectors; ++v) load(b(v), ptr[rdx + 64 * v], v);
    each([&](int r, int v) { vaddps(sum(r, v), sum(r, v), b(v)); });
    L(none);
  }

  ProductCodeKey key_;
};

}  // namespace

std::shared_ptr<const MachineCode> product_code(const ProductCodeKey& key) {
  static std::mutex mutex;
  static std::map<ProductCodeKey, std::weak_ptr<const MachineCode>> made;
  const std::lock_guard lock(mutex);
  if (auto known = made[key].lock()) return known;
  ProductCoder coder(key);
  auto code = MachineCode::make(coder.make());
  made[key] = code;
  return code;
}

}  // namespace bp::cpu
#else
namespace bp::cpu {
std::shared_ptr<const MachineCode> product_code(const ProductCodeKey&) { return nullptr; }
}  // namespace bp::cpu
#endif
