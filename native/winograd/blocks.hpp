// How a Winograd convolution is cut into blocks of tiles, and how each array of a block lies in memory.
//
//     output of one image, tiles of m x m         data that a block reads, tiles of n x n that overlap by r - 1
//     +----+----+----+----+                       +------+
//     | block   |    |    |                       |   +--+---+
//     |  2 x 2  |    |    |                       +---+--+   |
//     +----+----+----+----+                           +------+
//
//     X[point][tile seen][input]       x_plane per point, x_row per tile: the data, transformed
//     U[point][panel][input][output]   u_plane per point, panels of W outputs: the kernel, transformed
//     M[point][tile][output]           m_plane per point, m_row per tile: their products, out_block outputs at a time
//     G[point][tile][output]           g_plane per point, g_row per tile: the gradient of the output (backward_weights)
//
// A kernel longer than r taps is cut into pieces. Piece q reads the tiles that lie q * shift further on, so that a block sees
// more tiles than it writes.
#pragma once
#include "common/gemm.hpp"
#include "winograd/tile_transform.hpp"

namespace NINEFOLD_NS {
namespace {

// A block of work: the first image and tile along each axis, and how many of them.
struct Place {
    int64_t group, first[4], count[4];  // images, then tiles along z, y, x
};

template <class T> struct Blocks {
    static constexpr int L = kLanes<T>, W = kPanel<T>;
    static constexpr int64_t kRoom = 2 * L * kMostPoints * kMostPoints * kMostPoints;

    const Winograd& p;
    Shape point, block_tiles, seen_tiles;  // tiles of a block, and those that it reads
    int64_t n_points, n_pieces, n_taps, panels, summands;
    int64_t tiles, seen;  // in a block
    int64_t out_block;    // whole panels: an output channel that begins a block begins a panel
    int64_t x_row, x_plane, m_row, m_plane, g_row, g_plane, stage, u_plane, matrix_size, w_row, w_size;
    int64_t blocks[4], n_blocks;

    explicit Blocks(const Winograd& plan) : p(plan) {
        point = points(p);
        n_points = point.count(), n_pieces = pieces(p).count(), n_taps = taps(p).count();
        panels = ceil_div(p.outs, W), summands = n_pieces * p.ins;
        tiles = seen = p.block[0];
        n_blocks = p.groups;
        blocks[0] = ceil_div(p.batch, p.block[0]);
        for (int d = 0; d < 3; ++d) {
            const WinogradAxis& a = p.axis[d];
            block_tiles.n[d] = p.block[d + 1];
            seen_tiles.n[d] = p.block[d + 1] + (a.pieces - 1) * a.shift;
            tiles *= block_tiles.n[d], seen *= seen_tiles.n[d];
            blocks[d + 1] = ceil_div(a.tiles, p.block[d + 1]);
        }
        for (int64_t b : blocks) n_blocks *= b;
        out_block = round_up(p.out_block, W);
        x_row = pad_row_for_cache_sets(round_up(p.ins, L)), x_plane = pad_stride_for_cache_sets<T>(seen * x_row);
        m_row = round_up(min(out_block, p.outs), L), m_plane = pad_stride_for_cache_sets<T>(tiles * m_row);
        g_row = pad_row_for_cache_sets(round_up(p.outs, L)), g_plane = pad_stride_for_cache_sets<T>(tiles * g_row);
        w_row = round_up(p.ins, L), w_size = n_points * n_pieces * p.outs * w_row;
        u_plane = pad_stride_for_cache_sets<T>(panels * summands * W);
        const WinogradAxis &z = p.axis[0], &y = p.axis[1], &x = p.axis[2];
        int64_t row = (seen_tiles.n[2] - 1) * x.m + x.n;
        stage = max(z.n * y.n * row * L, L * n_pieces * z.r * y.r * x.r + L * n_taps);
        matrix_size = 0;
        for (const WinogradAxis& a : p.axis) matrix_size += a.n * a.n + 2 * a.n * a.r + 2 * a.n * a.m;
        matrix_size = pad_stride_for_cache_sets<T>(matrix_size);
    }

    // Rows whose strides are multiples of 256 bytes would share few sets of the L1 cache.
    static int64_t pad_row_for_cache_sets(int64_t row) {
        return row * int64_t(sizeof(T)) % 256 == 0 ? row + 64 / int64_t(sizeof(T)) : row;
    }

    int64_t kernel_size() const { return p.groups * n_points * u_plane; }
    int64_t offsets_size() const { return (tiles + n_pieces) * 8 / int64_t(sizeof(T)); }
    int64_t thread_size(bool weights) const {
        int64_t size = n_points * x_plane + stage + kRoom + offsets_size() + (weights ? n_points * g_plane : n_points * m_plane);
        return pad_stride_for_cache_sets<T>(size);
    }
    size_t scratch(bool weights, bool kept) const {
        int64_t size = matrix_size + p.threads * thread_size(weights);
        size += weights ? parts() * pad_stride_for_cache_sets<T>(w_size * p.groups) : kept ? 0 : kernel_size();
        return size_t(size) * sizeof(T);
    }
    // In backward_weights: threads that share tiles; the others share output channels.
    int64_t parts() const { return max(1, p.threads / p.split); }

    // Where a piece's taps lie among a kernel's, and -1 past its end; the kernel may be read backwards.
    int64_t tap(const int64_t* q, const int64_t* j) const {
        int64_t at = 0;
        for (int d = 0; d < 3; ++d) {
            const WinogradAxis& a = p.axis[d];
            int64_t t = q[d] * a.r + j[d];
            if (t >= a.taps) return -1;
            at = at * a.taps + (p.flip ? a.taps - 1 - t : t);
        }
        return at;
    }

    Place place(int64_t index) const {
        Place b;
        for (int d = 3; d >= 0; --d) {
            const int64_t total = d ? p.axis[d - 1].tiles : p.batch;
            b.first[d] = index % blocks[d] * p.block[d];
            b.count[d] = min(p.block[d], total - b.first[d]);
            index /= blocks[d];
        }
        b.group = index;
        return b;
    }

    // Offsets of a block's tiles in X, then of the pieces beside them.
    int64_t offsets(const Place& b, int64_t* row, int64_t* shift) const {
        int64_t seen_at[3], count = 0;
        for (int d = 0; d < 3; ++d) seen_at[d] = b.count[d + 1] + (p.axis[d].pieces - 1) * p.axis[d].shift;
        for (int64_t n = 0; n < b.count[0]; ++n)
            for (int64_t z = 0; z < b.count[1]; ++z)
                for (int64_t y = 0; y < b.count[2]; ++y)
                    for (int64_t x = 0; x < b.count[3]; ++x)
                        row[count++] = (((n * seen_at[0] + z) * seen_at[1] + y) * seen_at[2] + x) * x_row;
        int64_t at = 0;
        for (int64_t z = 0; z < p.axis[0].pieces; ++z)
            for (int64_t y = 0; y < p.axis[1].pieces; ++y)
                for (int64_t x = 0; x < p.axis[2].pieces; ++x)
                    shift[at++] =
                        ((z * p.axis[0].shift * seen_at[1] + y * p.axis[1].shift) * seen_at[2] + x * p.axis[2].shift) * x_row;
        return count;
    }
};

}  // namespace
}  // namespace NINEFOLD_NS
