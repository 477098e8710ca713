#include "amx.h"

#include <sys/syscall.h>
#include <unistd.h>

bool may_use_amx() {
#if defined(COMPILED_FOR_AMX)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of asm/prctl.h and of the processor's manual
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}
