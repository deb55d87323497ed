// y = mix(filter(keep * x)) + bias, and the gradients of x and of the mixing matrices.

#include "filters.h"
#include "products.h"

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
