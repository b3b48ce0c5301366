// How the rows of a matrix are shared out among threads when there is one vector, or few, and how their memory is asked for:
// what is read passes through the processor once, and it never waits for it as long as the requests run ahead.

#pragma once

#include "ggml-cpu-impl.h"

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace {

constexpr int AHEAD = 4096;  // bytes that are asked for in advance

// Asks for memory that is needed once (NTA): weights that pass need not drive everything else out of the caches.
inline void ask_for(const void * from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) {
        _mm_prefetch((const char *) from + at, _MM_HINT_NTA);
    }
}

// What to ask for while something is read that goes to `end`: what lies AHEAD, and what is read `then` (null: what
// follows).
class Later {
  public:
    Later(const void * end, const void * then) : end((const char *) end), jump(then ? (const char *) then - (const char *) end : 0) {}

    const char * of(const void * at) const {
        const char * later = (const char *) at + AHEAD;
        return later < end ? later : later + jump;
    }

  private:
    const char * end;
    ptrdiff_t jump;
};

// Rows in pieces that become smaller: long ones first, since memory likes them, short ones in the end, so that nobody waits
// long for the last one. `least`: how many a piece has.
class Pieces {
  public:
    Pieces(int64_t rows, int64_t least, int threads) : rows(rows), least(least), threads(threads) {}

    // From where to where piece `number` goes, which is larger than the last one asked for; false where there is none.
    bool find(int64_t number, int64_t & begin, int64_t & end) {
        for (; at < number; at++) {
            next();
        }
        next();
        at++;
        begin = from;
        end = to;
        return begin < rows;
    }

  private:
    void next() {
        if (at % threads == 0) {
            size = std::max(least, (rows - to) / (2 * threads));
        }
        from = to;
        to = std::min(rows, from + size);
    }

    const int64_t rows, least;
    const int threads;
    int64_t at = 0, size = 0, from = 0, to = 0;
};

// All pieces, each for one thread: `begin` gets this thread's first one, then all threads wait for each other, then
// `compute` gets one after another, with the one that comes after it (from 0 to 0 after the last).
template <typename Begin, typename Compute>
void share_out(const ggml_compute_params * params, int64_t rows, int64_t least, Begin begin, Compute compute) {
    Pieces pieces(rows, least, params->nth);
    int64_t at, end, next, next_end;
    bool there = pieces.find(params->ith, at, end);
    if (there) {
        begin(at, end);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    for (; there; at = next, end = next_end) {
        there = pieces.find(ggml_threadpool_chunk_add(params->threadpool, 1), next, next_end);
        if (!there) {
            next = next_end = 0;
        }
        compute(at, end, next, next_end);
    }
}

}  // namespace
