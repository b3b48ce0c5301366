// How loops around sums are compiled: sums must stay in registers, so that loops over them are unrolled, and those around
// them are not.

#pragma once

#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#define ROLLED _Pragma("nounroll")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#define ROLLED _Pragma("GCC unroll 1")
#endif
