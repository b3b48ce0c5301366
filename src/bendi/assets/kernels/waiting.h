// How the engine's threads wait for each other: included before llama.cpp's C code for CPUs.
//
// After each operation all threads wait for the last one. llama.cpp's do nothing but look again and again, which is the
// fastest way on cores of their own. Where somebody else computes as well, such as a second model, the one that is waited
// for may have no core, because who waits for it has: then each operation takes a time slice of the system (4 ms and
// more), and a token takes hundreds of them. Here a thread that has looked for some microseconds offers its core to
// whoever wants one. Where nobody does, that is a call of the system of a fraction of a microsecond.
//
// It gives up the rest of its time slice with that: workers ask for short ones (`scheduling.py`).

#pragma once

#include <sched.h>

#define BENDI_LOOKS 128  // x86: 2 to 5 us

static __thread unsigned bendi_looked;

static inline void bendi_relax_(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x100000F");  // pause
#endif
    if (++bendi_looked % BENDI_LOOKS == 0) {
        sched_yield();
    }
}

// Its definition, which has `void` for arguments, goes by another name; its calls, which have none, come here.
#define ggml_thread_cpu_relax(...) bendi_relax_##__VA_ARGS__()
