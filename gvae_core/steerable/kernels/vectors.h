// Vectors and memory of the fast layers. Features are packed pixel by pixel: [image][y][x][component][field],
// the fields padded with zeros to a multiple of LANES, so that every loop runs over whole vectors
// and, where a register is wider than LANES, at most one half.
//
// Vectors are the compiler's portable ones (GCC, Clang); the widths below are the only thing that
// knows the instruction set. No state is kept between calls.
// Results do not depend on timing: what threads add up is divided in fixed shares.
#pragma once

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

constexpr int LANES = 8;  // fields are padded to this, whatever the width of a register

#if defined(__AVX512F__)
constexpr int WIDTH = 16, ROWS = 8,
              GROUP = 4;  // floats per register, rows of a product tile, vectors per filter pass
#elif defined(__AVX2__)
constexpr int WIDTH = 8, ROWS = 6, GROUP = 4;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, ROWS = 12, GROUP = 4;
#else
constexpr int WIDTH = 4, ROWS = 6, GROUP = 2;
#endif
constexpr int PANEL = 2 * WIDTH;  // columns of a product tile
constexpr int FILTERS = 3;        // at most so many filters in registers at a time
constexpr int MAX_COMPONENTS = 64, MAX_GRID = 256;
constexpr long TILE_FLOATS =
    192 * 1024;  // filtered maps that stay in the second-level cache: 768 KiB

constexpr long BATCH = 8, FILTERED_FLOATS = 7 * 1024;  // pixels whose filtered components stay in the first-level cache

typedef float Vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t VecInt __attribute__((vector_size(4 * WIDTH)));
typedef float Half __attribute__((vector_size(4 * std::min(WIDTH, LANES))));  // one group of lanes
template <class V>
constexpr long SIZE = sizeof(V) / sizeof(float);

template <class V>
inline V load(const float* p) {  // of any alignment
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V>
inline void store(float* p, V v) {
    std::memcpy(p, &v, sizeof v);
}
template <class V>
inline V all(float x) {
    return x - V{};
}

// body(v, f) for f = 0 .. n in steps of whole vectors, and of a half one if that is left
template <class Body>
inline void for_lanes(long n, const Body& body) {
    long f = 0;
    for (; f + WIDTH <= n; f += WIDTH) body(Vec{}, f);
    if (f < n) body(Half{}, f);
}

inline long round_up(long n, long to) {
    return (n + to - 1) / to * to;
}

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;
inline Buffer floats(long n) {
    return Buffer(
        static_cast<float*>(std::aligned_alloc(64, round_up(n * sizeof(float) + 64, 64))));
}

// Run work(0) .. work(threads - 1) at once, on the threads of torch's operations where they are found (GNU OpenMP's
// entry): these stay awake for a while after each operation, so that threads of our own would share their processors.
// A forked process has none of them, and OpenMP would wait for them for ever.
const pid_t loaded_by = getpid();

template <class Work>
void parallel(long threads, const Work& work) {
    std::atomic<long> next{0};
    auto share = [&] {
        for (long t; (t = next++) < threads;) work(t);
    };
    using Region = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const auto region = reinterpret_cast<Region>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    if (threads < 2) return share();
    if (region && getpid() == loaded_by)
        return region([](void* s) { (*static_cast<decltype(share)*>(s))(); }, &share, threads, 0);
    std::vector<std::thread> running;
    try {
        running.reserve(threads);
        while (long(running.size()) < threads - 1) running.emplace_back(share);
    } catch (const std::exception&) {  // no more threads: those that run take the rest
    }
    share();
    for (auto& thread : running) thread.join();
}

}  // namespace
