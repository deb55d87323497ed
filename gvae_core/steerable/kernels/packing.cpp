// [images][fields][components][pixels] <-> [images][pixels][components][lanes]

#include "vectors.h"

namespace {

typedef float Eight __attribute__((vector_size(4 * LANES)));
static_assert(LANES == 8, "transpose exchanges eight rows and eight columns");

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t EightInt __attribute__((vector_size(4 * LANES)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, EightInt{__VA_ARGS__})
#endif

// Eight pixels of eight fields <-> eight fields of eight pixels: pairs of rows, then of pairs, then of halves.
inline void transpose(Eight (&row)[8]) {
    Eight pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = SHUFFLE(row[i], row[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] = SHUFFLE(row[i], row[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i : {0, 1, 4, 5}) {
        const int j = i + (i & 1);  // 0, 2, 4, 6
        fours[j] = SHUFFLE(pairs[i], pairs[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[j + 1] = SHUFFLE(pairs[i], pairs[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; ++i) {
        row[i] = SHUFFLE(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        row[i + 4] = SHUFFLE(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// block(plane, pixel, rows, p): eight lanes of a component, of which `rows` are fields, at eight pixels from p on;
// single(...): at pixel p alone. A run of pixels stays in the first-level cache.
template <class Block, class Single>
int for_blocks(long images, long fields, long components, long pixels, long threads, const Block& block,
               const Single& single) try {
    const long lanes = round_up(fields, LANES), channels = components * lanes, run = 64;
    std::atomic<long> next{0};
    parallel(std::min(threads, images), [&](long) {
        for (long n; (n = next++) < images;)
            for (long first = 0; first < pixels; first += run)
                for (long d = 0; d < components; ++d)
                    for (long f = 0; f < fields; f += LANES) {
                        const long plane = ((n * fields + f) * components + d) * pixels;
                        const long pixel = n * pixels * channels + d * lanes + f;
                        const long rows = std::min<long>(LANES, fields - f);
                        long p = first;
                        for (; p + 8 <= std::min(first + run, pixels); p += 8)
                            block(plane + p, pixel + p * channels, rows);
                        for (; p < std::min(first + run, pixels); ++p)
                            single(plane + p, pixel + p * channels, rows);
                    }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

}  // namespace

extern "C" int steerable_pack(int64_t images, int64_t fields, int64_t components, int64_t pixels,
                              int64_t threads, const float* planes, float* packed) {
    const long stride = components * pixels, channels = components * round_up(fields, LANES);
    return for_blocks(
        images, fields, components, pixels, threads,
        [=](long plane, long pixel, long rows) {
            Eight block[8] = {};
            for (long r = 0; r < rows; ++r) block[r] = load<Eight>(planes + plane + r * stride);
            transpose(block);
            for (long p = 0; p < 8; ++p) store(packed + pixel + p * channels, block[p]);
        },
        [=](long plane, long pixel, long rows) {
            for (long r = 0; r < LANES; ++r) packed[pixel + r] = r < rows ? planes[plane + r * stride] : 0.f;
        });
}

extern "C" int steerable_unpack(int64_t images, int64_t fields, int64_t components, int64_t pixels,
                                int64_t threads, const float* packed, float* planes) {
    const long stride = components * pixels, channels = components * round_up(fields, LANES);
    return for_blocks(
        images, fields, components, pixels, threads,
        [=](long plane, long pixel, long rows) {
            Eight block[8];
            for (long p = 0; p < 8; ++p) block[p] = load<Eight>(packed + pixel + p * channels);
            transpose(block);
            for (long r = 0; r < rows; ++r) store(planes + plane + r * stride, block[r]);
        },
        [=](long plane, long pixel, long rows) {
            for (long r = 0; r < rows; ++r) planes[plane + r * stride] = packed[pixel + r];
        });
}

extern "C" int steerable_width() {
    return WIDTH;
}
