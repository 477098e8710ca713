// Computes the matrix instructions of AMX on a processor that has none: such an instruction raises SIGILL, and the
// handler here decodes it, does what Intel's manual says (volume 2, chapter 3, "TDPBF16PS" and those beside it), and goes
// on behind it. So the operators' own machine code is tested. It takes the place of `fcnlab/kernels/amx.cpp`; where there
// is AMX, the processor computes.

#include "amx.h"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

struct Tile {
  uint8_t rows[16][64];
};

struct State {
  bool configured;
  int row_bytes[8], rows[8];
  Tile tiles[8];
};
thread_local State state;
bool wrong = false;

[[noreturn]] void refuse(const char* why, const uint8_t* code) {
  std::fprintf(stderr, "not emulated: %s:", why);
  for (int index = 0; index < 10; index++) std::fprintf(stderr, " %02x", code[index]);
  std::fprintf(stderr, "\n");
  std::abort();
}

// Widens the first or the second of each pair of bfloat16; numbers below the normal ones count as 0.
void widen(const Tile& tile, int second, float (&values)[16][16]) {
  for (int row = 0; row < 16; row++) {
    for (int column = 0; column < 16; column++) {
      uint32_t pair;
      std::memcpy(&pair, tile.rows[row] + 4 * column, sizeof(pair));
      uint32_t bits = second ? pair & 0xffff0000 : pair << 16;
      if ((bits & 0x7f800000) == 0) bits &= 0x80000000;
      std::memcpy(&values[row][column], &bits, sizeof(bits));
    }
  }
}

void multiply(const Tile& left, int left_bytes, int rows, const Tile& right, int right_bytes, Tile& sums) {
  float lefts[2][16][16], rights[2][16][16];
  for (int second = 0; second < 2; second++) {
    widen(left, second, lefts[second]);
    widen(right, second, rights[second]);
  }
  for (int row = 0; row < rows; row++) {
    float even[16] = {}, odd[16] = {}, sum[16];
    for (int pair = 0; pair < left_bytes / 4; pair++) {
      for (int column = 0; column < 16; column++) {
        even[column] += lefts[0][row][pair] * rights[0][pair][column];
        odd[column] += lefts[1][row][pair] * rights[1][pair][column];
      }
    }
    std::memcpy(sum, sums.rows[row], sizeof(sum));
    for (int column = 0; column < 16; column++) sum[column] += wrong ? even[column] - odd[column] : even[column] + odd[column];
    std::memcpy(sums.rows[row], sum, right_bytes);
  }
}

void configure(const uint8_t* from) {
  state = {};
  if (from[0] == 0) return;
  if (from[0] != 1 || from[1] != 0) refuse("a configuration", from);
  for (int tile = 0; tile < 8; tile++) {
    uint16_t bytes;
    std::memcpy(&bytes, from + 16 + 2 * tile, sizeof(bytes));
    state.row_bytes[tile] = bytes;
    state.rows[tile] = from[48 + tile];
    if (bytes > 64 || state.rows[tile] > 16) refuse("a configuration", from);
  }
  state.configured = true;
}

// The general registers by their numbers in an instruction.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

void emulate(int, siginfo_t*, void* context) {
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const uint8_t* const code = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  // A prefix of three bytes, in which the bits that extend registers are inverted; map 2 is that of 0F 38.
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) refuse("an instruction", code);
  const int extend_index = code[1] & 0x40 ? 0 : 8, extend_base = code[1] & 0x20 ? 0 : 8;
  const int prefix = code[2] & 3, second = 15 - (code[2] >> 3 & 15);
  const int operation = code[3], mode = code[4] >> 6, middle = code[4] >> 3 & 7, last = code[4] & 7;
  const uint8_t* end = code + 5;
  const uint8_t* memory = nullptr;
  int64_t stride = 0;
  if (mode != 3) {
    int64_t address = 0;
    int base = last + extend_base, displacement = mode == 1 ? 1 : mode == 2 ? 4 : 0;
    bool has_base = true, relative = false;
    if (last == 4) {
      const int scale = 1 << (*end >> 6), index = (*end >> 3 & 7) + extend_index;
      base = (*end & 7) + extend_base;
      if ((*end & 7) == 5 && mode == 0) has_base = false, displacement = 4;
      end++;
      if (index != 4) stride = registers[kRegisters[index]] * scale;
    } else if (last == 5 && mode == 0) {
      has_base = false, relative = true, displacement = 4;
    }
    if (has_base) address = registers[kRegisters[base]];
    if (displacement == 1) address += static_cast<int8_t>(*end);
    if (displacement == 4) {
      int32_t distance;
      std::memcpy(&distance, end, sizeof(distance));
      address += distance;
    }
    end += displacement;
    if (relative) address += reinterpret_cast<int64_t>(end);
    memory = reinterpret_cast<const uint8_t*>(address);
  }
  Tile& tile = state.tiles[middle];
  const auto demand = [&](bool holds) {
    if (!holds) refuse("an instruction for tiles that are not configured so", code);
  };
  if (operation == 0x49 && prefix == 0 && mode != 3 && middle == 0) {
    configure(memory + stride);
  } else if (operation == 0x49 && prefix == 0 && code[4] == 0xc0) {  // TILERELEASE
    state = {};
  } else if (operation == 0x49 && prefix == 3 && mode == 3 && last == 0) {  // TILEZERO
    demand(state.configured);
    tile = {};
  } else if (operation == 0x4b && (prefix == 1 || prefix == 3) && mode != 3 && last == 4) {  // TILELOADD, TILELOADDT1
    demand(state.configured);
    tile = {};
    for (int row = 0; row < state.rows[middle]; row++) {
      std::memcpy(tile.rows[row], memory + row * stride, state.row_bytes[middle]);
    }
  } else if (operation == 0x4b && prefix == 2 && mode != 3 && last == 4) {  // TILESTORED
    demand(state.configured);
    for (int row = 0; row < state.rows[middle]; row++) {
      std::memcpy(const_cast<uint8_t*>(memory) + row * stride, tile.rows[row], state.row_bytes[middle]);
    }
  } else if (operation == 0x5c && prefix == 2 && mode == 3) {  // TDPBF16PS: a row of `last` times a column of `second`
    demand(state.configured && second < 8 && middle != last && middle != second && last != second);
    demand(state.row_bytes[last] / 4 == state.rows[second] && state.rows[middle] == state.rows[last] &&
           state.row_bytes[middle] == state.row_bytes[second]);
    multiply(state.tiles[last], state.row_bytes[last], state.rows[middle], state.tiles[second],
             state.row_bytes[second], tile);
  } else {
    refuse("an instruction", code);
  }
  registers[REG_RIP] = reinterpret_cast<greg_t>(end);
}

bool prepare() {
  if (syscall(SYS_arch_prctl, 0x1023, 18) == 0) return true;
  struct sigaction action = {};
  action.sa_sigaction = emulate;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGILL, &action, nullptr) == 0;
}

}  // namespace

// Lets the emulated instruction compute something else.
extern "C" void disturb_amx(int disturbed) { wrong = disturbed != 0; }

bool may_use_amx() {
  static const bool prepared = prepare();
  return prepared;
}
