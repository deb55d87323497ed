// The fast layers on a CPU. Features are packed pixel by pixel: [image][y][x][component][field],
// the fields padded with zeros to a multiple of LANES, so that every loop runs over whole vectors
// and, where a register is wider than LANES, at most one half.
//
//   steerable_convolve            y = mix(filter(keep * x)) + bias
//   steerable_convolve_backward   gradients of x and of the mixing matrices
//   steerable_statistics          per image: mean and sum of squared deviations of every channel
//   steerable_activate            batch norm, inverse Fourier transform, ELU or ReLU, Fourier
//   transform steerable_activate_backward   gradients of x, scale and shift
//
// Vectors are the compiler's portable ones (GCC, Clang); the widths below are the only thing that
// knows the instruction set. No state is kept between calls; each call starts its own threads.
// Results do not depend on timing: what threads add up is divided in fixed shares.

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

// Run work(0) .. work(threads - 1) at once; what cannot get a thread runs here.
template <class Work>
void parallel(long threads, const Work& work) {
    std::vector<std::thread> running;
    long started = 1;
    try {
        running.reserve(threads);
        for (; started < threads; ++started)
            running.emplace_back([&work, started] { work(started); });
    } catch (const std::exception&) {
    }
    work(0);
    for (long t = started; t < threads; ++t) work(t);
    for (auto& thread : running) thread.join();
}

// ---- matrix products: c[i][j] (+)= sum_k a[i * ai + k * ak] * b[k * bk + j]
// ------------------------

template <class V, int R, int C>
inline void tile(long depth, const float* a, long ai, long ak, const float* b, long bk, float* c,
                 long ci, const float* start, bool add) {
    V sum[R][C];
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j)
            sum[i][j] = add     ? load<V>(c + i * ci + j * SIZE<V>)
                        : start ? load<V>(start + j * SIZE<V>)
                                : V{};
    for (long k = 0; k < depth; ++k, a += ak, b += bk) {
        V row[C];
        for (int j = 0; j < C; ++j) row[j] = load<V>(b + j * SIZE<V>);
        for (int i = 0; i < R; ++i) {
            const V x = all<V>(a[i * ai]);
            for (int j = 0; j < C; ++j) sum[i][j] += x * row[j];
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) store(c + i * ci + j * SIZE<V>, sum[i][j]);
}

template <class V, int C, int R = ROWS>
inline void tile_of(int rows, long depth, const float* a, long ai, long ak, const float* b, long bk,
                    float* c, long ci, const float* start, bool add) {
    if constexpr (R > 0) {
        if (rows == R)
            tile<V, R, C>(depth, a, ai, ak, b, bk, c, ci, start, add);
        else
            tile_of<V, C, R - 1>(rows, depth, a, ai, ak, b, bk, c, ci, start, add);
    }
}

// b is either packed in panels of PANEL columns (panel_stride > 0) or a plain matrix with rows of
// bk floats; the columns are a multiple of LANES.
void product(long rows, long columns, long depth, const float* a, long ai, long ak, const float* b,
             long bk, long panel_stride, float* c, long ci, const float* start, bool add) {
    const long groups = (rows + ROWS - 1) / ROWS;
    for (long j = 0; j < columns;) {
        const float* panel = (panel_stride ? b + j / PANEL * panel_stride + j % PANEL : b + j);
        const long left = columns - j, width = left >= PANEL ? PANEL : left >= WIDTH ? WIDTH : LANES;
        const float* s = start ? start + j : nullptr;
        for (long g = 0; g < groups; ++g) {  // equal shares, so that no tile is nearly empty
            const long i = g * rows / groups, n = (g + 1) * rows / groups - i;
            const float* ga = a + i * ai;
            float* gc = c + i * ci + j;
            if (width == PANEL)
                tile_of<Vec, 2>(n, depth, ga, ai, ak, panel, bk, gc, ci, s, add);
            else if (width == WIDTH)
                tile_of<Vec, 1>(n, depth, ga, ai, ak, panel, bk, gc, ci, s, add);
            else
                tile_of<Half, 1>(n, depth, ga, ai, ak, panel, bk, gc, ci, s, add);
        }
        j += width;
    }
}

}  // namespace

// ---- convolution
// -----------------------------------------------------------------------------------

extern "C" struct Convolution {
    int64_t images, height, width, components, fields;  // input
    int64_t height_out, width_out, components_out, fields_out;
    int64_t kernel, stride, pad_y, pad_x;
    int64_t filters, first_component, end_component, blocks, maps, threads;
    const float* bank;      // by parity [parts of a window][filters of it], see Fold
    const int32_t* parity;  // [4]: how many filters are even, odd in x, odd in y, odd in both
    const int32_t* block;  // [blocks][start, size, first map, maps]
    const int32_t*
        term_begin;  // [maps + 1]: a map is a sum of terms, coefficient * (filter * component)
    const int32_t* term_source;  // [terms]: filter * (end - first) + component - first
    const float* term_value;     // [terms]
    const int32_t* back_begin;   // the same table the other way: [filters * (end - first) + 1]
    const int32_t* back_map;
    const float* back_value;
};

namespace {

// A filter of a steerable kernel is even or odd under the mirrors of both axes, so that it need not meet every tap of a
// window: only the sums and differences of those that a mirror exchanges, a quarter of them. They come by parity, as
// Convolution::parity has them, each in the order of the window's upper left quarter, V vectors of channels an entry.
struct Fold {
    long odd, even, first[4]{}, entries[4]{};  // pairs of rows; those and the middle row; where a parity's entries are
    constexpr explicit Fold(long k) : odd(k / 2), even(k - odd) {
        for (long parity = 0, at = 0; parity < 4; at += entries[parity++]) {
            first[parity] = at;
            entries[parity] = (parity & 2 ? odd : even) * (parity & 1 ? odd : even);
        }
    }
};

// At most FILTERS filters of a parity, their bank [entries][stride], on the parts of a window from `part` on; `add` to
// what others of the parity have left there.
struct Filters {
    const float* bank;
    long entries, stride, part, first, count;
    bool add;
};

// Addresses derived from a Convolution.
struct Layout {
    const Convolution& c;
    std::vector<int32_t> term_at, back_at;  // where the terms of maps lie among filtered components, and back
    long channels, channels_out, used, sources, padded_fields_out;
    long padded_height, padded_width, pixels;
    std::vector<long> column, matrix, panels,
        panels_back;  // per block: offset in a row of maps, in the matrices
    long row, matrices, panel_floats, panel_back_floats, image_floats;
    long group,
        tile_pixels,  // images that go through together, and how many of their pixels at a time
        batch,        // pixels that are filtered before their maps are combined
        scratch;      // floats for the filtered components of those, and the parts of a window
    Fold fold;
    std::vector<Filters> filters;

    explicit Layout(const Convolution& c) : c(c), fold(c.kernel) {
        padded_fields_out = round_up(c.fields_out, LANES);
        channels = c.components * round_up(c.fields, LANES);
        channels_out = c.components_out * padded_fields_out;
        used = (c.end_component - c.first_component) * round_up(c.fields, LANES);
        sources = c.filters * used;
        batch = std::clamp<long>(FILTERED_FLOATS / sources, 1, BATCH);
        scratch = batch * sources + c.kernel * c.kernel * GROUP * WIDTH;
        padded_height = c.height + 2 * c.pad_y;
        padded_width = c.width + 2 * c.pad_x;
        pixels = c.height_out * c.width_out;
        const float* bank = c.bank;
        for (long parity = 0, before = 0; parity < 4; before += c.parity[parity++]) {
            const long of_it = c.parity[parity], shares = (of_it + FILTERS - 1) / FILTERS;
            for (long g = 0; g < shares; ++g) {
                const long first = g * of_it / shares, count = (g + 1) * of_it / shares - first;
                filters.push_back(
                    {bank + first, fold.entries[parity], of_it, fold.first[parity], before + first, count, g > 0});
            }
            bank += of_it * fold.entries[parity];
        }
        row = matrices = panel_floats = panel_back_floats = 0;
        for (long b = 0; b < c.blocks; ++b) {
            column.push_back(row);
            matrix.push_back(matrices);
            panels.push_back(panel_floats);
            panels_back.push_back(panel_back_floats);
            row += round_up(depth(b), PANEL);
            matrices += depth(b) * columns(b);
            panel_floats += depth(b) * round_up(columns(b), PANEL);
            panel_back_floats += columns(b) * round_up(depth(b), PANEL);
        }
        for (long t = 0; t < c.term_begin[c.maps]; ++t) {
            const long lanes = round_up(c.fields, LANES), map = c.back_map[t];
            long b = 0;
            while (map >= block(b)[2] + block(b)[3]) ++b;
            term_at.push_back(c.term_source[t] * lanes);
            back_at.push_back(column[b] + (map - block(b)[2]) * c.fields);
        }
        row += LANES;  // where the last map's padding may be written
        image_floats = padded_height * padded_width * channels;
        const long most = std::max<long>(ROWS, TILE_FLOATS / (row + 1));
        group = std::max<long>(1, std::min<long>(most / pixels, c.images / c.threads));
        const long tiles = (group * pixels + most - 1) / most;
        tile_pixels = (group * pixels + tiles - 1) / tiles;
    }
    const int32_t* block(long b) const { return c.block + 4 * b; }
    long start(long b) const { return block(b)[0] * padded_fields_out; }
    long columns(long b) const { return block(b)[1] * padded_fields_out; }
    long depth(long b) const { return block(b)[3] * c.fields; }
    // Entry (map, component, field in, field out) of block b in the caller's matrices
    // [entries][fields in][fields out].
    long entry(long b, long map, long component) const {
        long first = 0;
        for (long i = 0; i < b; ++i) first += long(block(i)[1]) * block(i)[3];
        return (first + component * block(b)[3] + map) * c.fields * c.fields_out;
    }
    bool direct(const float* keep) const { return !keep && c.pad_y == 0 && c.pad_x == 0; }
};

// mixing -> panels[block][column / PANEL][depth][PANEL], the depth running over (map, field in)
void pack_panels(const Layout& l, const float* mixing, float* panels) {
    std::memset(panels, 0, l.panel_floats * sizeof(float));
    for (long b = 0; b < l.c.blocks; ++b)
        for (long m = 0; m < l.block(b)[3]; ++m)
            for (long i = 0; i < l.block(b)[1]; ++i)
                for (long f = 0; f < l.c.fields; ++f) {
                    const float* from = mixing + l.entry(b, m, i) + f * l.c.fields_out;
                    const long k = m * l.c.fields + f, depth = l.depth(b);
                    for (long o = 0; o < l.c.fields_out; ++o) {
                        const long j = i * l.padded_fields_out + o;
                        panels[l.panels[b] + (j / PANEL * depth + k) * PANEL + j % PANEL] = from[o];
                    }
                }
}

// the transposed matrices in panels[block][depth / PANEL][column][PANEL]
void pack_panels_back(const Layout& l, const float* mixing, float* panels) {
    std::memset(panels, 0, l.panel_back_floats * sizeof(float));
    for (long b = 0; b < l.c.blocks; ++b)
        for (long m = 0; m < l.block(b)[3]; ++m)
            for (long i = 0; i < l.block(b)[1]; ++i)
                for (long f = 0; f < l.c.fields; ++f) {
                    const float* from = mixing + l.entry(b, m, i) + f * l.c.fields_out;
                    const long k = m * l.c.fields + f, columns = l.columns(b);
                    float* to = panels + l.panels_back[b] + k / PANEL * columns * PANEL + k % PANEL;
                    for (long o = 0; o < l.c.fields_out; ++o)
                        to[(i * l.padded_fields_out + o) * PANEL] = from[o];
                }
}

// The channels of pixel p, times keep [fields][height][width]: x -> its zero-padded copy, or back.
inline void move_pixel(const Layout& l, const float* from, const float* keep, long p, float* to) {
    if (!keep) {
        std::memcpy(to, from, l.channels * sizeof(float));
        return;
    }
    const long lanes = round_up(l.c.fields, LANES), area = l.c.height * l.c.width;
    for_lanes(lanes, [&](auto zero, long f) {
        using V = decltype(zero);
        float factor[SIZE<V>];
        for (long i = 0; i < SIZE<V>; ++i)
            factor[i] = f + i < l.c.fields ? keep[(f + i) * area + p] : 0.f;
        const V k = load<V>(factor);
        for (long d = 0; d < l.c.components; ++d)
            store(to + d * lanes + f, load<V>(from + d * lanes + f) * k);
    });
}

// Where pixel (y, x) lies in the zero-padded copy.
inline long padded_place(const Layout& l, long y, long x) {
    return ((y + l.c.pad_y) * l.padded_width + x + l.c.pad_x) * l.channels;
}

// One image [height][width][channels] into its zero-padded copy, times keep
// [fields][height][width].
void pad_image(const Layout& l, const float* x, const float* keep, float* padded) {
    std::memset(padded, 0, l.padded_height * l.padded_width * l.channels * sizeof(float));
    for (long y = 0, p = 0; y < l.c.height; ++y)
        for (long column = 0; column < l.c.width; ++column, ++p)
            move_pixel(l, x + p * l.channels, keep, p, padded + padded_place(l, y, column));
}

// The gradient of the padded copy back to the image: the reverse of pad_image.
void crop_image(const Layout& l, const float* padded, const float* keep, float* x) {
    for (long y = 0, p = 0; y < l.c.height; ++y)
        for (long column = 0; column < l.c.width; ++column, ++p)
            move_pixel(l, padded + padded_place(l, y, column), keep, p, x + p * l.channels);
}

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

// x [images][height][width][components][lanes], keep [images][fields][height][width] or null,
// mixing [entries][fields][fields out], bias [components out][lanes out] or null. Returns 0, or 1
// without memory.
extern "C" int steerable_convolve(const Convolution* convolution, const float* x, const float* keep,
                                  const float* mixing, const float* bias, float* y) try {
    const Convolution& c = *convolution;
    const Layout l(c);
    const long threads = std::max<long>(1, std::min<long>(c.threads, c.images));
    const long area = c.height * c.width;
    const long padded = l.direct(keep) ? 0 : l.group * l.image_floats;
    const long maps = l.tile_pixels * l.row + LANES;
    const long share = round_up(padded + maps + l.scratch, LANES);
    Buffer panels = floats(l.panel_floats), scratch = floats(threads * share);
    if (!panels || !scratch) return 1;
    pack_panels(l, mixing, panels.get());
    std::vector<char> reached(c.components_out, 0);
    for (long b = 0; b < c.blocks; ++b)
        for (long i = 0; i < l.block(b)[1]; ++i) reached[l.block(b)[0] + i] = 1;
    std::atomic<long> next{0};
    parallel(threads, [&](long t) {
        float* image = scratch.get() + t * share;
        float *tile_maps = image + padded, *z = tile_maps + maps;
        for (long n; (n = next.fetch_add(l.group)) < c.images;) {
            const long images = std::min(l.group, c.images - n), pixels = images * l.pixels;
            const float* from = x + n * area * l.channels;
            if (padded) {
                for (long i = 0; i < images; ++i)
                    pad_image(l, from + i * area * l.channels,
                              keep ? keep + (n + i) * c.fields * area : nullptr,
                              image + i * l.image_floats);
                from = image;
            }
            float* to = y + n * l.pixels * l.channels_out;
            for (long first = 0; first < pixels; first += l.tile_pixels) {
                const long count = std::min(l.tile_pixels, pixels - first);
                for (long p = 0; p < count; p += l.batch)
                    take_maps(l, from, first + p, std::min(l.batch, count - p), z,
                              tile_maps + p * l.row);
                float* out = to + first * l.channels_out;
                for (long b = 0; b < c.blocks; ++b)
                    product(count, l.columns(b), l.depth(b), tile_maps + l.column[b], l.row, 1,
                            panels.get() + l.panels[b], PANEL, l.depth(b) * PANEL, out + l.start(b),
                            l.channels_out, bias ? bias + l.start(b) : nullptr, false);
                for (long d = 0; d < c.components_out; ++d)
                    if (!reached[d])
                        for (long p = 0; p < count; ++p) {
                            float* row = out + p * l.channels_out + d * l.padded_fields_out;
                            if (bias)
                                std::memcpy(row, bias + d * l.padded_fields_out,
                                            l.padded_fields_out * sizeof(float));
                            else
                                std::memset(row, 0, l.padded_fields_out * sizeof(float));
                        }
            }
        }
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

// grad [images][height out][width out][components out][lanes out]; grad_x like x or null;
// grad_mixing like mixing or null.
extern "C" int steerable_convolve_backward(const Convolution* convolution, const float* x,
                                           const float* keep, const float* mixing,
                                           const float* grad, float* grad_x, float* grad_mixing) try {
    const Convolution& c = *convolution;
    const Layout l(c);
    const long threads = std::max<long>(1, std::min<long>(c.threads, c.images));
    const long area = c.height * c.width;
    const long padded = l.group * l.image_floats;
    const long maps = l.tile_pixels * l.row + LANES;
    const long share = round_up(2 * padded + maps + l.scratch, LANES);
    Buffer panels = floats(l.panel_back_floats), scratch = floats(threads * share),
           sums = floats(threads * l.matrices);
    if (!panels || !scratch || !sums) return 1;
    if (grad_x) pack_panels_back(l, mixing, panels.get());
    parallel(threads, [&](long t) {
        float* image = scratch.get() + t * share;
        float *grad_image = image + padded, *tile_maps = grad_image + padded, *z = tile_maps + maps;
        float* sum = sums.get() + t * l.matrices;
        std::memset(sum, 0, l.matrices * sizeof(float));
        const long last = (t + 1) * c.images / threads;
        for (long n = t * c.images / threads; n < last; n += l.group) {
            const long images = std::min(l.group, last - n), pixels = images * l.pixels;
            const float *from = x + n * area * l.channels,
                        *kept = keep ? keep + n * c.fields * area : nullptr;
            if (grad_mixing && !l.direct(keep)) {
                for (long i = 0; i < images; ++i)
                    pad_image(l, from + i * area * l.channels,
                              kept ? kept + i * c.fields * area : nullptr,
                              image + i * l.image_floats);
                from = image;
            }
            if (grad_x) std::memset(grad_image, 0, padded * sizeof(float));
            const float* grad_y = grad + n * l.pixels * l.channels_out;
            for (long first = 0; first < pixels; first += l.tile_pixels) {
                const long count = std::min(l.tile_pixels, pixels - first);
                const float* out = grad_y + first * l.channels_out;
                if (grad_mixing) {
                    for (long p = 0; p < count; p += l.batch)
                        take_maps(l, from, first + p, std::min(l.batch, count - p), z,
                                  tile_maps + p * l.row);
                    for (long b = 0; b < c.blocks; ++b)
                        product(l.depth(b), l.columns(b), count, tile_maps + l.column[b], 1, l.row,
                                out + l.start(b), l.channels_out, 0, sum + l.matrix[b],
                                l.columns(b), nullptr, true);
                }
                if (grad_x) {
                    for (long b = 0; b < c.blocks; ++b)
                        product(count, round_up(l.depth(b), PANEL), l.columns(b), out + l.start(b),
                                l.channels_out, 1, panels.get() + l.panels_back[b], PANEL,
                                l.columns(b) * PANEL, tile_maps + l.column[b], l.row, nullptr,
                                false);
                    for (long p = 0; p < count; p += l.batch)
                        spread_maps(l, tile_maps + p * l.row, first + p,
                                    std::min(l.batch, count - p), z, grad_image);
                }
            }
            for (long i = 0; grad_x && i < images; ++i)
                crop_image(l, grad_image + i * l.image_floats,
                           kept ? kept + i * c.fields * area : nullptr,
                           grad_x + (n + i) * area * l.channels);
        }
    });
    if (grad_mixing)
        for (long b = 0; b < c.blocks; ++b)
            for (long m = 0; m < l.block(b)[3]; ++m)
                for (long i = 0; i < l.block(b)[1]; ++i)
                    for (long f = 0; f < c.fields; ++f) {
                        float* to = grad_mixing + l.entry(b, m, i) + f * c.fields_out;
                        const long at = l.matrix[b] + (m * c.fields + f) * l.columns(b) +
                                        i * l.padded_fields_out;
                        for (long o = 0; o < c.fields_out; ++o) {
                            float total = 0;
                            for (long t = 0; t < threads; ++t)
                                total += sums.get()[t * l.matrices + at + o];
                            to[o] = total;
                        }
                    }
    return 0;
} catch (const std::exception&) {
    return 1;
}

// ---- packing: [images][fields][components][pixels] <-> [images][pixels][components][lanes]
// -----------------------------------------------------------------------------------------

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

// ---- batch norm and pointwise functions in the Fourier domain
// --------------------------------------

// x [images][pixels][channels], channels a multiple of LANES -> per image mean and squared
// deviations [images][2][channels]
extern "C" int steerable_statistics(int64_t images, int64_t pixels, int64_t channels,
                                    int64_t threads, const float* x, float* out) try {
    std::atomic<long> next{0};
    parallel(std::min(threads, images), [&](long) {
        for (long n; (n = next++) < images;)
            for_lanes(channels, [&](auto sum, long c) {
                using V = decltype(sum);
                const float* from = x + n * pixels * channels + c;
                V squares{};
                for (long p = 0; p < pixels; ++p) sum += load<V>(from + p * channels);
                const V mean = sum / float(pixels);
                for (long p = 0; p < pixels; ++p) {
                    const V d = load<V>(from + p * channels) - mean;
                    squares += d * d;
                }
                store(out + 2 * n * channels + c, mean);
                store(out + (2 * n + 1) * channels + c, squares);
            });
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

// work(f, p, pixels): the lanes from f of pixel p, and where pixels is 2 of p + 1; begin(f) and
// end(f, paired) around all pixels of an image
template <class Begin, class Work, class End>
inline void for_pixels(const Activation& a, long n, const Begin& begin, const Work& work,
                       const End& end) {
    for (long f = 0; f < a.lanes; f += WIDTH) {
        const bool paired = a.lanes - f < WIDTH;
        begin(f, paired);
        const long last = (n + 1) * a.pixels;
        for (long p = n * a.pixels; p < last; p += 1 + paired)
            work(f, p, paired ? std::min(2L, last - p) : 0);
        end(f, paired);
    }
}

// from one half register to the other, in [pixel][channels]: pixels as in for_pixels
inline long second_half(long pixels, long channels) {
    return pixels == 0 ? WIDTH / 2 : (pixels - 1) * channels;
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
        const auto nothing = [](long, bool) {};
        for (long n; (n = next++) < a.images;)
            for_pixels(
                a, n, nothing,
                [&](long f, long p, long pixels) {
                    normalise(a, x + p * a.components * a.lanes, f, pixels, in);
                    transform(a.samples, a.grid, a.components, in, samples);
                    for (long g = 0; g < a.grid; ++g) samples[g] = activate(samples[g], relu);
                    transform(a.project, a.components_out, a.grid, samples, out);
                    const long second = second_half(pixels, a.components_out * a.lanes);
                    for (long d = 0; d < a.components_out; ++d)
                        store_lanes(y + (p * a.components_out + d) * a.lanes + f, second, out[d]);
                },
                nothing);
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
            slopes[MAX_GRID + 4], shift_sum[MAX_COMPONENTS], scale_sum;
        for (long n; (n = next++) < a.images;)
            for_pixels(
                a, n,
                [&](long, bool) {
                    scale_sum = Vec{};
                    for (long d = 0; d < a.components; ++d) shift_sum[d] = Vec{};
                },
                [&](long f, long p, long pixels) {
                    const long second = second_half(pixels, a.components * a.lanes),
                               same = pixels ? 0 : WIDTH / 2;
                    const float* from = x + p * a.components * a.lanes;
                    normalise(a, from, f, pixels, in);
                    transform(a.samples, a.grid, a.components, in, samples);
                    for (long d = 0; d < a.components_out; ++d)
                        in[d] = load_lanes(grad + (p * a.components_out + d) * a.lanes + f,
                                           second_half(pixels, a.components_out * a.lanes));
                    transform(a.project_back, a.grid, a.components_out, in, slopes);
                    for (long g = 0; g < a.grid; ++g) slopes[g] *= activate_slope(samples[g], relu);
                    transform(a.samples_back, a.components, a.grid, slopes, back);
                    const Vec scale = a.mean ? load_lanes(a.scale + f, same) : all<Vec>(1.f);
                    for (long d = 0; d < a.components; ++d) {
                        store_lanes(grad_x + (p * a.components + d) * a.lanes + f, second,
                                    back[d] * scale);
                        if (a.mean) {
                            if (pixels == 1) back[d] = first_half(back[d]);  // counted once
                            shift_sum[d] += back[d];
                            scale_sum += back[d] * (load_lanes(from + d * a.lanes + f, second) -
                                                    load_lanes(a.mean + d * a.lanes + f, same));
                        }
                    }
                },
                [&](long f, bool paired) {
                    if (!a.mean) return;
                    store_sum(grad_scale + n * a.lanes + f, paired, scale_sum);
                    for (long d = 0; d < a.components; ++d)
                        store_sum(grad_shift + (n * a.components + d) * a.lanes + f, paired,
                                  shift_sum[d]);
                });
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

extern "C" int steerable_width() {
    return WIDTH;
}
