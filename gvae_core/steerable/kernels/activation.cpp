// Batch norm statistics, and pointwise functions in the Fourier domain: batch norm, inverse transform, ELU or ReLU,
// transform; gradients of x, scale and shift.

#include "vectors.h"

// x [images][pixels][channels], channels a multiple of LANES -> per image mean and squared
// deviations [images][2][channels]
extern "C" int steerable_statistics(int64_t images, int64_t pixels, int64_t channels,
                                    int64_t threads, const float* x, float* out) try {
    std::atomic<long> next{0};
    parallel(std::min(threads, images), [&](long) {
        for (long n; (n = next++) < images;) {
            const float* from = x + n * pixels * channels;
            float *mean = out + 2 * n * channels, *squares = mean + channels;
            std::memset(mean, 0, 2 * channels * sizeof(float));
            for (long p = 0; p < pixels; ++p)
                for_lanes(channels, [&](auto zero, long c) {
                    using V = decltype(zero);
                    store(mean + c, load<V>(mean + c) + load<V>(from + p * channels + c));
                });
            for (long c = 0; c < channels; ++c) mean[c] /= float(pixels);
            for (long p = 0; p < pixels; ++p)
                for_lanes(channels, [&](auto zero, long c) {
                    using V = decltype(zero);
                    const V d = load<V>(from + p * channels + c) - load<V>(mean + c);
                    store(squares + c, load<V>(squares + c) + d * d);
                });
        }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

extern "C" struct Activation {
    int64_t images, pixels, components, components_out, lanes, grid, relu, threads;
    const float* mean;          // [components][lanes], or null without batch norm
    const float* scale;         // [lanes]
    const float* shift;         // [components][lanes]
    const float* samples;       // A in groups of 4 rows: [grid / 4][components][4]
    const float* project;       // its inverse: [components out / 4][grid][4]
    const float* project_back;  // the transposed inverse: [grid / 4][components out][4]
    const float* samples_back;  // the transposed A: [components / 4][grid][4]
};

namespace {

// exp of x <= 0, to one unit in the last place: 2^n * p(r), after Cephes' expf
inline Vec exponential(Vec x) {
    const Vec low = all<Vec>(-87.f);
    x = x < low ? low : x;
    const Vec n =
        __builtin_convertvector(__builtin_convertvector(x * 1.44269504088896341f - 0.5f, VecInt),
                                Vec);  // truncation rounds, as x <= 0
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = all<Vec>(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    const VecInt power = (__builtin_convertvector(n, VecInt) + 127) << 23;
    Vec two_n;
    std::memcpy(&two_n, &power, sizeof two_n);
    return p * two_n;
}

// NaN stays NaN: no comparison holds for it, so it takes the last branch
inline Vec activate(Vec x, bool relu) {
    const Vec zero{};
    if (relu) return x < zero ? zero : x;
    const Vec negative = exponential(x < zero ? x : zero) - 1.f;
    return x < zero ? negative : x;
}

inline Vec activate_slope(Vec x, bool relu) {
    const Vec zero{}, one = all<Vec>(1.f);
    if (relu) return x > zero ? one : zero;
    const Vec negative = exponential(x < zero ? x : zero);
    return x > zero ? one : negative;
}

// out[i .. i + 4 * G] = sum_j matrix[i][j] * in[j]
template <int G>
inline void transform_rows(const float* matrix, long columns, const Vec* in, Vec* out) {
    Vec sum[G][4] = {};
    for (long j = 0; j < columns; ++j, matrix += 4)
        for (int g = 0; g < G; ++g)
            for (int i = 0; i < 4; ++i) sum[g][i] += matrix[4 * columns * g + i] * in[j];
    for (int g = 0; g < G; ++g)
        for (int i = 0; i < 4; ++i) out[4 * g + i] = sum[g][i];
}

// out[i] = sum_j matrix[i][j] * in[j], the matrix in groups of 4 rows, of which two go at a time; `out` has room for a
// multiple of 4
inline void transform(const float* matrix, long rows, long columns, const Vec* in, Vec* out) {
    long i = 0;
    for (; i + 4 < rows; i += 8) transform_rows<2>(matrix + i * columns, columns, in, out + i);
    if (i < rows) transform_rows<1>(matrix + i * columns, columns, in, out + i);
}

inline Vec join(Half a, Half b) {
#if defined(__AVX512F__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
#endif
    float halves[2 * SIZE<Half>];
    store(halves, a);
    store(halves + SIZE<Half>, b);
    return load<Vec>(halves);
}

// A register of lanes: of one pixel, or where only half a register of lanes is left the same lanes
// of two pixels. `second` is how far apart the two halves lie, a multiple of `stride` floats.
inline Vec load_lanes(const float* p, long second) {
    if (WIDTH <= LANES || second == WIDTH / 2) return load<Vec>(p);
    return join(load<Half>(p), load<Half>(p + second));
}
inline void store_lanes(float* p, long second, Vec v) {
    if (WIDTH <= LANES || second == WIDTH / 2) return store(p, v);
    float halves[WIDTH];
    store(halves, v);
    std::memcpy(p + second, halves + WIDTH / 2, sizeof(Half));  // the same place twice: the first stays
    std::memcpy(p, halves, sizeof(Half));
}

inline Vec first_half(Vec v) {
    float lanes[WIDTH];
    store(lanes, v);
    for (int i = WIDTH / 2; i < WIDTH; ++i) lanes[i] = 0.f;
    return load<Vec>(lanes);
}
// the lanes of one pixel, or the sum of two pixels' halves
inline void store_sum(float* p, bool paired, Vec v) {
    if (!paired) return store(p, v);
    float lanes[WIDTH];
    store(lanes, v);
    for (int i = 0; i < WIDTH / 2; ++i) p[i] = lanes[i] + lanes[i + WIDTH / 2];
}

// Whether only half a register is left of the lanes from f: two pixels share one.
inline bool is_paired(const Activation& a, long f) {
    return a.lanes - f < WIDTH;
}

// work(f, p, pixels) for all of image n: the lanes from f of pixel p, and where pixels is 2 of p + 1.
// All lanes of a few pixels, then the next pixels: so memory is read in its order.
constexpr long SOME = 2;
template <class Work>
inline void for_pixels(const Activation& a, long n, const Work& work) {
    const long last = (n + 1) * a.pixels;
    for (long first = n * a.pixels; first < last; first += SOME)
        for (long f = 0; f < a.lanes; f += WIDTH) {
            const bool paired = is_paired(a, f);
            for (long p = first; p < std::min(first + SOME, last); p += 1 + paired)
                work(f, p, paired ? std::min(2L, last - p) : 0);
        }
}

// from one half register to the other, in [pixel][channels]: pixels as in for_pixels
inline long second_half(long pixels, long channels) {
    return pixels == 0 ? WIDTH / 2 : (pixels - 1) * channels;
}

// Asks for what `for_pixels` comes to next: the loads would wait for memory. Behind the last pixel nothing happens.
inline void fetch(const float* p, long components, long lanes) {
    for (long d = 0; d < components; ++d)
        __builtin_prefetch(p + (SOME * components + d) * lanes, 0, 2);
}

inline void normalise(const Activation& a, const float* x, long f, long pixels, Vec* out) {
    const long second = second_half(pixels, a.components * a.lanes), same = pixels ? 0 : WIDTH / 2;
    for (long d = 0; d < a.components; ++d) {
        const Vec v = load_lanes(x + d * a.lanes + f, second);
        const long at = d * a.lanes + f;
        out[d] = a.mean ? (v - load_lanes(a.mean + at, same)) * load_lanes(a.scale + f, same) +
                              load_lanes(a.shift + at, same)
                        : v;
    }
}

}  // namespace

// x [images][pixels][components][lanes] -> y [images][pixels][components out][lanes]
extern "C" int steerable_activate(const Activation* activation, const float* x, float* y) try {
    const Activation& a = *activation;
    const bool relu = a.relu;
    std::atomic<long> next{0};
    parallel(std::min(a.threads, a.images), [&](long) {
        Vec in[MAX_COMPONENTS], samples[MAX_GRID + 4], out[MAX_COMPONENTS + 4];
        for (long n; (n = next++) < a.images;)
            for_pixels(a, n, [&](long f, long p, long pixels) {
                fetch(x + p * a.components * a.lanes + f, a.components, a.lanes);
                normalise(a, x + p * a.components * a.lanes, f, pixels, in);
                transform(a.samples, a.grid, a.components, in, samples);
                for (long g = 0; g < a.grid; ++g) samples[g] = activate(samples[g], relu);
                transform(a.project, a.components_out, a.grid, samples, out);
                const long second = second_half(pixels, a.components_out * a.lanes);
                for (long d = 0; d < a.components_out; ++d)
                    store_lanes(y + (p * a.components_out + d) * a.lanes + f, second, out[d]);
            });
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

// grad like y; grad_x like x; grad_scale [images][lanes] and grad_shift
// [images][components][lanes], or null.
extern "C" int steerable_activate_backward(const Activation* activation, const float* x,
                                           const float* grad, float* grad_x, float* grad_scale,
                                           float* grad_shift) try {
    const Activation& a = *activation;
    const bool relu = a.relu;
    std::atomic<long> next{0};
    parallel(std::min(a.threads, a.images), [&](long) {
        Vec in[MAX_COMPONENTS], back[MAX_COMPONENTS + 4], samples[MAX_GRID + 4],
            slopes[MAX_GRID + 4];
        std::vector<Vec> sums;  // [lanes / WIDTH][components + 1], of the shift and the scale
        for (long n; (n = next++) < a.images;) {
            if (a.mean) sums.assign(round_up(a.lanes, WIDTH) / WIDTH * (a.components + 1), Vec{});
            for_pixels(a, n, [&](long f, long p, long pixels) {
                const long second = second_half(pixels, a.components * a.lanes),
                           same = pixels ? 0 : WIDTH / 2;
                const float* from = x + p * a.components * a.lanes;
                fetch(from + f, a.components, a.lanes);
                fetch(grad + p * a.components_out * a.lanes + f, a.components_out, a.lanes);
                normalise(a, from, f, pixels, in);
                transform(a.samples, a.grid, a.components, in, samples);
                for (long d = 0; d < a.components_out; ++d)
                    in[d] = load_lanes(grad + (p * a.components_out + d) * a.lanes + f,
                                       second_half(pixels, a.components_out * a.lanes));
                transform(a.project_back, a.grid, a.components_out, in, slopes);
                for (long g = 0; g < a.grid; ++g) slopes[g] *= activate_slope(samples[g], relu);
                transform(a.samples_back, a.components, a.grid, slopes, back);
                const Vec scale = a.mean ? load_lanes(a.scale + f, same) : all<Vec>(1.f);
                for (long d = 0; d < a.components; ++d)
                    store_lanes(grad_x + (p * a.components + d) * a.lanes + f, second,
                                back[d] * scale);
                if (!a.mean) return;
                Vec* shift_sum = sums.data() + f / WIDTH * (a.components + 1);
                Vec scale_sum = shift_sum[a.components];
                for (long d = 0; d < a.components; ++d) {
                    if (pixels == 1) back[d] = first_half(back[d]);  // counted once
                    shift_sum[d] += back[d];
                    scale_sum += back[d] * (load_lanes(from + d * a.lanes + f, second) -
                                            load_lanes(a.mean + d * a.lanes + f, same));
                }
                shift_sum[a.components] = scale_sum;
            });
            for (long f = 0; a.mean && f < a.lanes; f += WIDTH) {
                const Vec* sum = sums.data() + f / WIDTH * (a.components + 1);
                for (long d = 0; d < a.components; ++d)
                    store_sum(grad_shift + (n * a.components + d) * a.lanes + f, is_paired(a, f),
                              sum[d]);
                store_sum(grad_scale + n * a.lanes + f, is_paired(a, f), sum[a.components]);
            }
        }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}
