// What a convolution is given, and where everything lies: filters, maps, matrices, zero-padded images.
#pragma once

#include "vectors.h"

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

}  // namespace
