// Windows -> maps, and the transpose for gradients: scalar filters on every component, then sparse sums.
#pragma once

#include "layout.h"

namespace {

// visit(taps, parts, pair_x, pair_y): where the taps are that the mirrors exchange, [lower][right], their entries by
// parity, and whether there are two by x, by y. Unrolled for kernels of K; 0 is any: in unfold_window, unrolled, too many
// would need a register.
template <int K, class Body>
inline void for_quarter(const Layout& l, const Body& visit) {
    const Fold fold(K > 0 ? K : l.c.kernel);
    const long row = l.padded_width * l.channels, last = (K > 0 ? K : l.c.kernel) - 1;
#pragma GCC unroll 4
    for (long y = 0; y < fold.even; ++y)
#pragma GCC unroll 4
        for (long x = 0; x < fold.even; ++x) {
            const long taps[4] = {y * row + x * l.channels, y * row + (last - x) * l.channels,
                                  (last - y) * row + x * l.channels, (last - y) * row + (last - x) * l.channels};
            const long wide = y * fold.even + x, narrow = y * fold.odd + x;
            const long parts[4] = {wide, fold.first[1] + narrow, fold.first[2] + wide, fold.first[3] + narrow};
            visit(taps, parts, x < fold.odd, y < fold.odd);
        }
}

template <class Vec, int V, int K>
inline void fold_window(const Layout& l, const float* window, float* parts) {
    for_quarter<K>(l, [&](const long* taps, const long* at, bool pair_x, bool pair_y) {
        for (long v = 0; v < V * SIZE<Vec>; v += SIZE<Vec>) {
            const auto tap = [&](int i) { return load<Vec>(window + taps[i] + v); };
            const auto put = [&](int i, Vec value) { store(parts + at[i] * V * SIZE<Vec> + v, value); };
            const Vec a = tap(0);
            if (!pair_x && !pair_y) {
                put(0, a);
            } else if (!pair_y) {
                const Vec b = tap(1);
                put(0, a + b), put(1, a - b);
            } else if (!pair_x) {
                const Vec c = tap(2);
                put(0, a + c), put(2, a - c);
            } else {
                const Vec b = tap(1), c = tap(2), d = tap(3);
                const Vec upper = a + b, lower = c + d, upper_odd = a - b, lower_odd = c - d;
                put(0, upper + lower), put(1, upper_odd + lower_odd);
                put(2, upper - lower), put(3, upper_odd - lower_odd);
            }
        }
    });
}

// The transpose: window += the taps that the parts make.
template <class Vec, int V>
inline void unfold_window(const Layout& l, const float* parts, float* window) {
    for_quarter<0>(l, [&](const long* taps, const long* at, bool pair_x, bool pair_y) {
        for (long v = 0; v < V * SIZE<Vec>; v += SIZE<Vec>) {
            const auto part = [&](int i) { return load<Vec>(parts + at[i] * V * SIZE<Vec> + v); };
            const auto add = [&](int i, Vec value) {
                float* to = window + taps[i] + v;
                store(to, load<Vec>(to) + value);
            };
            const Vec even = part(0);
            if (!pair_x && !pair_y) {
                add(0, even);
            } else if (!pair_y) {
                const Vec odd = part(1);
                add(0, even + odd), add(1, even - odd);
            } else if (!pair_x) {
                const Vec odd = part(2);
                add(0, even + odd), add(2, even - odd);
            } else {
                const Vec odd_x = part(1), odd_y = part(2), both = part(3);
                const Vec left = even + odd_x, right = even - odd_x, left_odd = odd_y + both, right_odd = odd_y - both;
                add(0, left + left_odd), add(1, right + right_odd);
                add(2, left - left_odd), add(3, right - right_odd);
            }
        }
    });
}

// F filters on V vectors of channels of the parts of a window: z[filter] = sum over entries of bank[entry] * parts[entry]
template <class Vec, int V, int F = FILTERS>
inline void filter_parts(const Filters& filters, const float* parts, float* z, long used) {
    if constexpr (F > 0) {
        if (filters.count < F) return filter_parts<Vec, V, F - 1>(filters, parts, z, used);
        Vec sum[F][V] = {};
        const float* bank = filters.bank;
        for (long e = 0; e < filters.entries; ++e, bank += filters.stride, parts += V * SIZE<Vec>) {
            Vec in[V];
            for (int v = 0; v < V; ++v) in[v] = load<Vec>(parts + v * SIZE<Vec>);
            for (int f = 0; f < F; ++f) {
                const Vec weight = all<Vec>(bank[f]);
                for (int v = 0; v < V; ++v) sum[f][v] += weight * in[v];
            }
        }
        for (int f = 0; f < F; ++f)
            for (int v = 0; v < V; ++v) store(z + f * used + v * SIZE<Vec>, sum[f][v]);
    }
}

// The transpose: parts[entry] (+)= sum over F filters of bank[entry] * z[filter]
template <class Vec, int V, int F = FILTERS>
inline void spread_parts(const Filters& filters, const float* z, long used, float* parts) {
    if constexpr (F > 0) {
        if (filters.count < F) return spread_parts<Vec, V, F - 1>(filters, z, used, parts);
        Vec grad[F][V];
        const float* bank = filters.bank;
        for (int f = 0; f < F; ++f)
            for (int v = 0; v < V; ++v) grad[f][v] = load<Vec>(z + f * used + v * SIZE<Vec>);
        for (long e = 0; e < filters.entries; ++e, bank += filters.stride, parts += V * SIZE<Vec>) {
            Vec out[V] = {};
            for (int v = 0; filters.add && v < V; ++v) out[v] = load<Vec>(parts + v * SIZE<Vec>);
            for (int f = 0; f < F; ++f) {
                const Vec weight = all<Vec>(bank[f]);
                for (int v = 0; v < V; ++v) out[v] += weight * grad[f][v];
            }
            for (int v = 0; v < V; ++v) store(parts + v * SIZE<Vec>, out[v]);
        }
    }
}

// All filters on V vectors of channels of one window: z[filter] = sum over taps of filter[tap] * window[tap].
template <class Vec, int V>
inline void filter_vectors(const Layout& l, const float* window, float* parts, float* z) {
    if (l.c.kernel > 1) {
        (l.c.kernel == 5   ? fold_window<Vec, V, 5>
         : l.c.kernel == 4 ? fold_window<Vec, V, 4>
                           : fold_window<Vec, V, 0>)(l, window, parts);
        window = parts;
    }
    for (const Filters& f : l.filters)
        filter_parts<Vec, V>(f, window + f.part * V * SIZE<Vec>, z + f.first * l.used, l.used);
}

// The transpose: window[tap] += sum over filters of filter[tap] * z[filter].
template <class Vec, int V>
inline void spread_vectors(const Layout& l, float* window, float* parts, const float* z) {
    for (int parity = 0; parity < 4; ++parity)
        if (!l.c.parity[parity])
            std::fill_n(parts + l.fold.first[parity] * V * SIZE<Vec>, l.fold.entries[parity] * V * SIZE<Vec>, 0.f);
    for (const Filters& f : l.filters)
        spread_parts<Vec, V>(f, z + f.first * l.used, l.used, parts + f.part * V * SIZE<Vec>);
    unfold_window<Vec, V>(l, parts, window);
}

// body(zero of a vector type, how many of them, first channel) over the channels of a pixel that filters act on, in equal
// shares of at most GROUP vectors
template <int V = GROUP, class Body>
inline void for_vectors(long vectors, long first, const Body& body) {
    if constexpr (V > 0) {
        if (vectors < V) return for_vectors<V - 1>(vectors, first, body);
        body(Vec{}, std::integral_constant<int, V>{}, first);
    }
}

template <class Body>
inline void for_channels(long used, const Body& body) {
    const long vectors = used / WIDTH, groups = (vectors + GROUP - 1) / GROUP;
    for (long g = 0; g < groups; ++g) {
        const long first = g * vectors / groups;
        for_vectors((g + 1) * vectors / groups - first, first * WIDTH, body);
    }
    if (vectors * WIDTH < used) body(Half{}, std::integral_constant<int, 1>{}, vectors * WIDTH);
}

// Where the window of a pixel of a group of images begins.
inline long window_offset(const Layout& l, long pixel) {
    const long image = pixel / l.pixels, y = pixel % l.pixels / l.c.width_out,
               x = pixel % l.c.width_out;
    return image * l.image_floats + (y * l.padded_width + x) * l.c.stride * l.channels +
           l.c.first_component * round_up(l.c.fields, LANES);
}

// to[p * to_pixel + field] = sum over terms of value * from[p * from_pixel + at[term] + field], for
// some pixels p; the commonest numbers of terms and pixels are known to the compiler
template <int TERMS, int PIXELS>
inline void combine(long terms, const int32_t* at, const float* value, const float* from,
                    long from_pixel, long lanes, float* to, long to_pixel, long pixels) {
    if constexpr (TERMS > 0) terms = TERMS;
    if constexpr (PIXELS > 0) pixels = PIXELS;
    for_lanes(lanes, [&](auto zero, long f) {
        using V = decltype(zero);
        const float* source = from + f;
        float* target = to + f;
        for (long p = 0; p < pixels; ++p, source += from_pixel, target += to_pixel) {
            V sum{};
            for (long t = 0; t < terms; ++t) sum += value[t] * load<V>(source + at[t]);
            store(target, sum);
        }
    });
}

template <int TERMS>
inline void combine_terms(long terms, const int32_t* at, const float* value, const float* from,
                          long from_pixel, long lanes, float* to, long to_pixel, long pixels) {
    (pixels == BATCH ? combine<TERMS, BATCH> : combine<TERMS, 0>)(terms, at, value, from, from_pixel,
                                                                  lanes, to, to_pixel, pixels);
}

inline void combine_any(long terms, const int32_t* at, const float* value, const float* from,
                        long from_pixel, long lanes, float* to, long to_pixel, long pixels) {
    (terms == 1   ? combine_terms<1>
     : terms == 2 ? combine_terms<2>
                  : combine_terms<0>)(terms, at, value, from, from_pixel, lanes, to, to_pixel, pixels);
}

// The maps of some pixels into rows[pixel][l.row], the maps of a block side by side, fields unpadded. z: l.scratch floats.
void take_maps(const Layout& l, const float* images, long first, long pixels, float* z,
               float* rows) {
    const Convolution& c = l.c;
    const long lanes = round_up(c.fields, LANES);
    float* parts = z + l.batch * l.sources;
    for (long p = 0; p < pixels; ++p) {
        const float* window = images + window_offset(l, first + p);
        for_channels(l.used, [&](auto zero, auto count, long v) {
            filter_vectors<decltype(zero), count>(l, window + v, parts, z + p * l.sources + v);
        });
    }
    for (long b = 0; b < c.blocks; ++b) {
        float* to = rows + l.column[b];
        for (long m = l.block(b)[2]; m < l.block(b)[2] + l.block(b)[3]; ++m, to += c.fields) {
            const long begin = c.term_begin[m], terms = c.term_begin[m + 1] - begin;
            combine_any(terms, l.term_at.data() + begin, c.term_value + begin, z, l.sources, lanes, to,
                        l.row, pixels);
        }
    }
}

// The transpose: the gradient of the maps of some pixels into the gradient of their windows.
void spread_maps(const Layout& l, const float* rows, long first, long pixels, float* z,
                 float* images) {
    const Convolution& c = l.c;
    const long lanes = round_up(c.fields, LANES),
               sources = c.filters * (c.end_component - c.first_component);
    float* parts = z + l.batch * l.sources;
    for (long s = 0; s < sources; ++s) {
        const long begin = c.back_begin[s];
        combine_any(c.back_begin[s + 1] - begin, l.back_at.data() + begin, c.back_value + begin, rows,
                    l.row, lanes, z + s * lanes, l.sources, pixels);
    }
    if (lanes > c.fields)  // what follows the fields in a row of maps is no padding
        for (long s = 0; s < pixels * sources; ++s)
            std::fill(z + s * lanes + c.fields, z + (s + 1) * lanes, 0.f);
    for (long p = 0; p < pixels; ++p) {
        float* window = images + window_offset(l, first + p);
        for_channels(l.used, [&](auto zero, auto count, long v) {
            spread_vectors<decltype(zero), count>(l, window + v, parts, z + p * l.sources + v);
        });
    }
}

}  // namespace
