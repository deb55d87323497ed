// [images][fields][components][pixels] <-> [images][pixels][components][lanes]

#include "vectors.h"

extern "C" int steerable_pack(int64_t images, int64_t fields, int64_t components, int64_t pixels,
                              int64_t threads, const float* planes, float* packed) try {
    const long lanes = round_up(fields, LANES), channels = components * lanes;
    std::atomic<long> next{0};
    parallel(std::min(threads, images), [&](long) {
        for (long n; (n = next++) < images;)
            for (long first = 0; first < pixels; first += 64)
                for (long d = 0; d < components; ++d)
                    for (long f = 0; f < lanes; ++f) {
                        const float* from = planes + ((n * fields + f) * components + d) * pixels;
                        float* to = packed + n * pixels * channels + d * lanes + f;
                        for (long p = first; p < std::min(first + 64, long(pixels)); ++p)
                            to[p * channels] = f < fields ? from[p] : 0.f;
                    }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

extern "C" int steerable_unpack(int64_t images, int64_t fields, int64_t components, int64_t pixels,
                                int64_t threads, const float* packed, float* planes) try {
    const long lanes = round_up(fields, LANES), channels = components * lanes;
    std::atomic<long> next{0};
    parallel(std::min(threads, images), [&](long) {
        for (long n; (n = next++) < images;)
            for (long first = 0; first < pixels; first += 64)
                for (long f = 0; f < fields; ++f)
                    for (long d = 0; d < components; ++d) {
                        const float* from = packed + n * pixels * channels + d * lanes + f;
                        float* to = planes + ((n * fields + f) * components + d) * pixels;
                        for (long p = first; p < std::min(first + 64, long(pixels)); ++p)
                            to[p] = from[p * channels];
                    }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

extern "C" int steerable_width() {
    return WIDTH;
}
