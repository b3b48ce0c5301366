// What Linux can do about memory that llama.cpp allocates. The linker sends calls here (--wrap).
//
// Clearing memory for keys and values: llama.cpp writes zeros into all of it, twice while a model loads, several GB for a
// server with long contexts, which takes many seconds and makes the system hand out memory that nobody may ever use.
// Here the pages are given back instead, and Linux hands out zeros when one is touched again. Only for memory that ggml
// asked the C library for (private and without a file behind it), and where the system refuses, as for locked pages, the
// original does it.
//
// Weights that are laid out anew: each token reads all of them, and with pages of 4 KiB, which many systems give unless
// they are asked, finding them takes time (in a virtual machine twice). So pages of 2 MiB are asked for. All of this
// memory is filled at once, so that no more of it is used; that of keys and values, of which most may never be touched,
// is left alone. A system that has none, or shall give none, gives small ones.

#include "ggml-backend.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" ggml_backend_buffer_t __real_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size);
extern "C" ggml_backend_buffer_t __wrap_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size);
extern "C" void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);
extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);

#if defined(__linux__)

#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr size_t LEAST_BYTES = 1 << 20;  // below, a call of the system costs more than it saves
constexpr size_t LARGE_PAGE_BYTES = 1 << 21;

void ask_for_large_pages(char * begin, size_t bytes) {
    const size_t before = (LARGE_PAGE_BYTES - (uintptr_t) begin % LARGE_PAGE_BYTES) % LARGE_PAGE_BYTES;
    if (before < bytes) {
        (void) madvise(begin + before, (bytes - before) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES, MADV_HUGEPAGE);
    }
}

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

extern "C" ggml_backend_buffer_t __wrap_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = __real_ggml_backend_buft_alloc_buffer(type, size);
    if (buffer && strcmp(ggml_backend_buft_name(type), "CPU_REPACK") == 0) {
        ask_for_large_pages((char *) ggml_backend_buffer_get_base(buffer), size);
    }
    return buffer;
}

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const bool ours = value == 0 && ggml_backend_buffer_get_type(buffer) == ggml_backend_cpu_buffer_type() &&
                      ggml_backend_buffer_get_size(buffer) >= LEAST_BYTES;
    if (!ours || !given_back((char *) ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer))) {
        __real_ggml_backend_buffer_clear(buffer, value);
    }
}

#else

extern "C" ggml_backend_buffer_t __wrap_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    return __real_ggml_backend_buft_alloc_buffer(type, size);
}

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    __real_ggml_backend_buffer_clear(buffer, value);
}

#endif
