// Clearing memory for keys and values, in place of llama.cpp's, which writes zeros into all of it, twice while a model
// loads: several GB for a server with long contexts, which takes many seconds and makes the system hand out memory that
// nobody may ever use. Here the pages are given back instead, and Linux hands out zeros when one is touched again.
//
// Only for memory that ggml asked the C library for (private and without a file behind it), and where the system
// refuses, as for locked pages, the original does it. The linker sends calls here (--wrap).

#include "ggml-backend.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);
extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);

#if defined(__linux__)

#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr size_t LEAST_BYTES = 1 << 20;  // below, a call of the system costs more than it saves

// Whether `bytes` from `begin` on are zero now.
bool given_back(char * begin, size_t bytes) {
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    const size_t before = (page - (uintptr_t) begin % page) % page;
    const size_t whole = (bytes - before) / page * page;
    if (madvise(begin + before, whole, MADV_DONTNEED) != 0) {
        return false;
    }
    memset(begin, 0, before);
    memset(begin + before + whole, 0, bytes - before - whole);
    return true;
}

}  // namespace

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const bool ours = value == 0 && ggml_backend_buffer_get_type(buffer) == ggml_backend_cpu_buffer_type() &&
                      ggml_backend_buffer_get_size(buffer) >= LEAST_BYTES;
    if (!ours || !given_back((char *) ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer))) {
        __real_ggml_backend_buffer_clear(buffer, value);
    }
}

#else

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    __real_ggml_backend_buffer_clear(buffer, value);
}

#endif
