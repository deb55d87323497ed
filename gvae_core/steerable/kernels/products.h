// Matrix products: c[i][j] (+)= sum_k a[i * ai + k * ak] * b[k * bk + j].
#pragma once

#include "vectors.h"

namespace {

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
