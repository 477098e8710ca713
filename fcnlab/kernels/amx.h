// Whether this process may use AMX, the matrix instructions of Intel's server processors since Sapphire Rapids.
#pragma once

#if defined(__AMX_BF16__) || defined(__AMXBF16__)  // the second is what older Clang defines
#define COMPILED_FOR_AMX
#endif

// Asks Linux, once, for the registers of the matrix instructions, which it gives to none that does not ask. Without
// them, such an instruction ends the process.
bool may_use_amx();
