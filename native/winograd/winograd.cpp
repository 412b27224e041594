// Winograd's convolution. A block of tiles is transformed (B^T) into X[point][tile][channel]. It is multiplied point by point
// with the transformed kernel U (G). The products M are transformed back (A^T) before the next block: only the kernel leaves the
// cache. Vectors run over channels in both memory formats: contiguous rows are transposed while they are staged and written.
#ifdef _OPENMP
#include <omp.h>
#endif

#include "common/gemm.hpp"
#include "winograd/tile_transform.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kChunk = 320;  // summands of a product whose packed panel stays in the nearest cache

template <class T> struct Engine {
    static constexpr int L = kLanes<T>, W = kPanel<T>;
    static constexpr int64_t kRoom = 2 * L * kMostPoints * kMostPoints * kMostPoints;

    const Winograd& p;
    Shape point, block_tiles, seen_tiles;  // tiles of a block, and those that it reads
    int64_t n_points, n_pieces, n_taps, panels, summands;
    int64_t tiles, seen;  // in a block
    int64_t out_block;    // whole panels: an output channel that begins a block begins a panel
    int64_t x_row, x_plane, m_row, m_plane, g_row, g_plane, stage, u_plane, matrix_size, w_row, w_size;
    int64_t blocks[4], n_blocks;

    explicit Engine(const Winograd& plan) : p(plan) {
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

    Matrices<T> matrices(T* room, bool weights) const {
        Matrices<T> all;
        for (int d = 0; d < 3; ++d) {
            const WinogradAxis& a = p.axis[d];
            for (int k = 0; k < 3; ++k) all.pass[d][k] = nullptr;
            if (a.n == 1) continue;
            const int64_t spread = weights ? a.m : a.r, collect = weights ? a.r : a.m;
            const double* from[3] = {a.BT, a.G[weights], a.AT[weights]};
            const int64_t size[3] = {a.n * a.n, a.n * spread, a.n * collect};
            for (int k = 0; k < 3; ++k) {
                all.at[d][k] = room;
                for (int64_t j = 0; j < size[k]; ++j) room[j] = T(from[k][j]);
                room += size[k];
            }
            all.pass[d][0] = BT_pass_of<T>(a.n);
            all.pass[d][1] = G_or_AT_pass_of<T, true>(a.n, spread);
            all.pass[d][2] = G_or_AT_pass_of<T, false>(a.n, collect);
        }
        return all;
    }

    NINEFOLD_INLINE static void one(const Matrices<T>& all, int k, Shape in, Shape out, bool x_first, const T* from,
                                    const int64_t* from_stride, T* to, const int64_t* to_stride, T* room) {
        const Pass<T> pass[3] = {all.pass[0][k], all.pass[1][k], all.pass[2][k]};
        const T* at[3] = {all.at[0][k], all.at[1][k], all.at[2][k]};
        transform<T>(pass, at, in, out, x_first, from, from_stride, to, to_stride, room);
    }

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

    // U[point][panel][piece * ins + input][output] for inputs [i0, i1) of one panel.
    void kernel(const Matrices<T>& all, const T* weight, T* U, int64_t panel, int64_t i0, int64_t i1, T* staged, T* room) const {
        const Shape size = piece(p), count = pieces(p);
        T *raw = staged, *cut = staged + n_taps * L;
        const int64_t stride[3] = {size.n[1] * size.n[2] * L, size.n[2] * L, L};
        const int64_t to_stride[3] = {point.n[1] * point.n[2] * u_plane, point.n[2] * u_plane, u_plane};
        for (int v = 0; v < kVectors; ++v) {
            const int64_t o = panel * W + v * L, lanes = min(L, p.outs - o);
            for (int64_t i = i0; i < i1; ++i) {
                T* to = U + panel * summands * W + i * W + v * L;
                if (lanes <= 0) {
                    for (int64_t k = 0; k < n_points; ++k)
                        for (int64_t q = 0; q < n_pieces; ++q) store(to + k * u_plane + q * p.ins * W, Vec<T>{});
                    continue;
                }
                gather<T>(weight + o * p.w_out + i * p.w_in, p.w_out, lanes, p.w_tap, n_taps, raw, L);
                int64_t q[3], j[3], at = 0;
                for (q[0] = 0; q[0] < count.n[0]; ++q[0])
                    for (q[1] = 0; q[1] < count.n[1]; ++q[1])
                        for (q[2] = 0; q[2] < count.n[2]; ++q[2], ++at) {
                            T* c = cut;
                            for (j[0] = 0; j[0] < size.n[0]; ++j[0])
                                for (j[1] = 0; j[1] < size.n[1]; ++j[1])
                                    for (j[2] = 0; j[2] < size.n[2]; ++j[2], c += L) {
                                        int64_t t = tap(q, j);
                                        store(c, t < 0 ? Vec<T>{} : load(raw + t * L));
                                    }
                            one(all, 1, size, point, true, cut, stride, to + at * p.ins * W, to_stride, room);
                        }
            }
        }
    }

    // A line of `columns` positions of one vector of channels; zeros where there is none.
    NINEFOLD_INLINE static void stage_line(const T* from, int64_t step, int64_t channel, int64_t lanes, const Positions& at,
                                           int64_t first, int64_t columns, T* to) {
        const Run *run = at.of(first), *end = at.runs + at.n_runs;
        for (int64_t c = 0; c < columns; ++run) {
            const int64_t behind = run == end ? columns : min(columns, run->to + run->count - first);
            if (run == end || run->from < 0) {
                for (; c < behind; ++c) store(to + c * L, Vec<T>{});
            } else if (run->step == 1) {
                gather<T>(from + (run->from + first + c - run->to) * step, channel, lanes, step, behind - c, to + c * L, L);
                c = behind;
            } else {
                for (; c < behind; ++c)
                    gather<T>(from + (run->from + (first + c - run->to) * run->step) * step, channel, lanes, step, 1, to + c * L,
                              L);
            }
        }
    }

    struct Place {
        int64_t group, first[4], count[4];  // images, tiles
    };

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

    // X[point][tile][channel] of one operand: the data, or with `grad` the outputs, whose tiles do not overlap.
    void forward(const Matrices<T>& all, const Place& b, const T* from, bool grad, T* X, T* staged, T* room) const {
        const Shape size = grad ? tile(p) : point;
        const int64_t channels = grad ? p.outs : p.ins, row = grad ? g_row : x_row, plane = grad ? g_plane : x_plane;
        const int64_t *stride = grad ? p.out : p.in, channel = grad ? p.out_c : p.in_c, image = grad ? p.out_n : p.in_n;
        Shape count;
        const Positions* table[3];
        int64_t start[3];
        for (int d = 0; d < 3; ++d) {
            const WinogradAxis& a = p.axis[d];
            count.n[d] = b.count[d + 1] + (grad ? 0 : (a.pieces - 1) * a.shift);
            table[d] = grad ? &a.target : &a.source;
            start[d] = b.first[d + 1] * a.m;
        }
        const int64_t columns = (count.n[2] - 1) * p.axis[2].m + size.n[2];
        const int64_t in_stride[3] = {size.n[1] * columns * L, columns * L, L};
        const int64_t to_stride[3] = {point.n[1] * point.n[2] * plane, point.n[2] * plane, plane};
        const T* group = from + b.group * channels * channel + b.first[0] * image;
        int64_t at = 0;
        for (int64_t n = 0; n < b.count[0]; ++n)
            for (int64_t z = 0; z < count.n[0]; ++z)
                for (int64_t y = 0; y < count.n[1]; ++y, at += count.n[2])
                    for (int64_t i = 0; i < channels; i += L) {
                        const int64_t lanes = min(L, channels - i);
                        const T* base = group + n * image + i * channel;
                        for (int64_t dz = 0; dz < size.n[0]; ++dz) {
                            const int64_t sz = (*table[0])[start[0] + z * p.axis[0].m + dz];
                            for (int64_t dy = 0; dy < size.n[1]; ++dy) {
                                const int64_t sy = (*table[1])[start[1] + y * p.axis[1].m + dy];
                                T* line = staged + (dz * size.n[1] + dy) * columns * L;
                                if (sz < 0 || sy < 0) {
                                    for (int64_t c = 0; c < columns; ++c) store(line + c * L, Vec<T>{});
                                } else {
                                    stage_line(base + sz * stride[0] + sy * stride[1], stride[2], channel, lanes, *table[2],
                                               start[2], columns, line);
                                }
                            }
                        }
                        for (int64_t x = 0; x < count.n[2]; ++x)
                            one(all, grad ? 1 : 0, size, point, true, staged + x * p.axis[2].m * L, in_stride,
                                X + (at + x) * row + i, to_stride, room);
                    }
    }

    // The result's tiles out of M[point][tile][channel] for channels [o, o + count); NaN in what is not finite of them, before
    // the bias, to `spoilt`.
    void backward(const Matrices<T>& all, const Place& b, const T* M, int64_t o, int64_t channels, const T* bias, T* out,
                  T* staged, T* room, Vec<T>& spoilt) const {
        const Shape size = tile(p);
        const WinogradAxis &az = p.axis[0], &ay = p.axis[1], &ax = p.axis[2];
        const int64_t columns = b.count[3] * ax.m, kept = min(columns, ax.size - b.first[3] * ax.m);
        const int64_t in_stride[3] = {point.n[1] * point.n[2] * m_plane, point.n[2] * m_plane, m_plane};
        const int64_t to_stride[3] = {size.n[1] * columns * L, columns * L, L};
        for (int64_t i = 0; i < channels; i += L) {
            const int64_t lanes = min(L, channels - i), channel = b.group * p.outs + o + i;
            Vec<T> add{};
            if (bias != nullptr)
                for (int64_t l = 0; l < lanes; ++l) add[l] = bias[channel + l];
            int64_t at = 0;
            for (int64_t n = 0; n < b.count[0]; ++n)
                for (int64_t z = 0; z < b.count[1]; ++z)
                    for (int64_t y = 0; y < b.count[2]; ++y, at += b.count[3]) {
                        for (int64_t x = 0; x < b.count[3]; ++x)
                            one(all, 2, point, size, false, M + (at + x) * m_row + i, in_stride, staged + x * ax.m * L, to_stride,
                                room);
                        for (int64_t dz = 0; dz < size.n[0]; ++dz)
                            for (int64_t dy = 0; dy < size.n[1]; ++dy) {
                                const int64_t oz = (b.first[1] + z) * az.m + dz, oy = (b.first[2] + y) * ay.m + dy;
                                if (oz >= az.size || oy >= ay.size) continue;
                                T* to = out + (b.first[0] + n) * p.out_n + channel * p.out_c + oz * p.out[0] + oy * p.out[1] +
                                        b.first[3] * ax.m * p.out[2];
                                scatter<T>(staged + (dz * size.n[1] + dy) * columns * L, L, add, T(p.floor), to, p.out_c, lanes,
                                           p.out[2], kept, &spoilt);
                            }
                    }
        }
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

    // M[point][tile][channel] = sum over pieces and inputs, for channels [o, o + channels).
    void multiply(const T* X, const T* U, T* M, int64_t count, const int64_t* row, const int64_t* shift, int64_t o,
                  int64_t channels) const {
        const int64_t length = min(p.ins, kChunk), together = max(1, kChunk / p.ins);
        for (int64_t k = 0; k < n_points; ++k)
            for (int64_t q = 0; q < n_pieces; q += together)
                for (int64_t i = 0; i < p.ins; i += length) {
                    const Segments over{shift + q, min(together, n_pieces - q), min(length, p.ins - i)};
                    for (int64_t c = 0; c < channels; c += W) {
                        const T* panel = U + k * u_plane + (o + c) / W * summands * W + (q * p.ins + i) * W;
                        const int64_t vectors = min(kVectors, ceil_div(channels - c, L));
                        for (int64_t t = 0; t < count; t += kRows)
                            product_of<T>(count - t, vectors, X + k * x_plane + i, row + t, over, panel,
                                          M + k * m_plane + t * m_row + c, m_row, q + i > 0);
                    }
                }
    }

    void prepare(const T* weight, T* U, T* matrix_room, T* room, int64_t threads) const {
        const Matrices<T> all = matrices(matrix_room, false);
        const int64_t each = max(1, ceil_div(p.ins, 8)), cuts = ceil_div(p.ins, each);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t job = 0; job < p.groups * panels * cuts; ++job) {
            const int64_t thread = thread_number(), group = job / (panels * cuts), panel = job / cuts % panels,
                          i = job % cuts * each;
            T* mine = room + thread * thread_size(false);
            kernel(all, weight + group * p.w_group, U + group * n_points * u_plane, panel, i, min(p.ins, i + each), mine,
                   mine + stage);
        }
    }

    static int64_t thread_number() {
#ifdef _OPENMP
        return omp_get_thread_num();
#else
        return 0;
#endif
    }

    // Returns whether all of the result is finite, before the bias.
    bool run(const T* in, const T* weight, const T* kept, const T* bias, T* out, T* scratch) const {
        T* room = scratch + matrix_size;
        const T* U = kept;
        if (kept == nullptr) {
            T* made = room + p.threads * thread_size(false);
            prepare(weight, made, scratch, room, p.threads);
            U = made;
        }
        const Matrices<T> all = matrices(scratch, false);
        const int64_t share = round_up(ceil_div(p.outs, p.split), W);
        bool finite = true;
#pragma omp parallel for schedule(dynamic) num_threads(p.threads) if (p.threads > 1)
        for (int64_t job = 0; job < n_blocks * p.split; ++job) {
            const Place b = place(job / p.split);
            T *mine = room + thread_number() * thread_size(false), *transforms = mine + stage, *X = transforms + kRoom;
            T* M = X + n_points * x_plane;
            int64_t *row = reinterpret_cast<int64_t*>(M + n_points * m_plane), *shift = row + tiles;
            const int64_t first = job % p.split * share, end = min(p.outs, first + share);
            if (first >= end) continue;
            const int64_t count = offsets(b, row, shift);
            Vec<T> spoilt{};
            forward(all, b, in, false, X, mine, transforms);
            for (int64_t o = first; o < end; o += out_block) {
                const int64_t channels = min(out_block, end - o);
                multiply(X, U + b.group * n_points * u_plane, M, count, row, shift, o, channels);
                backward(all, b, M, o, channels, bias, out, mine, transforms, spoilt);
            }
            if (!zero(spoilt)) {
#pragma omp atomic write
                finite = false;
            }
        }
        return finite;
    }

    static bool zero(Vec<T> v) {
        bool all = true;
        for (int l = 0; l < L; ++l) all = all && v[l] == T(0);
        return all;
    }

    // Sums the products of one thread's blocks of tiles for output channels [first, end) of every group.
    void sum(const Matrices<T>& all, const T* in, const T* grad, T* D, int64_t from, int64_t to, int64_t first, int64_t end,
             T* mine) const {
        T *transforms = mine + stage, *X = transforms + kRoom, *G = X + n_points * x_plane;
        int64_t *row = reinterpret_cast<int64_t*>(G + n_points * g_plane), *shift = row + tiles;
        int64_t group = -1;
        for (int64_t k = from; k < to; ++k) {
            const Place b = place(k);
            const bool add = b.group == group;
            group = b.group;
            const int64_t count = offsets(b, row, shift);
            forward(all, b, in, false, X, mine, transforms);
            forward(all, b, grad, true, G, mine, transforms);
            for (int64_t k = 0; k < n_points; ++k)
                for (int64_t q = 0; q < n_pieces; ++q)
                    for (int64_t i = 0; i < p.ins; i += W)
                        for (int64_t o = first; o < end; o += kRows)
                            outer_of<T>(end - o, min(kVectors, ceil_div(p.ins - i, L)), G + k * g_plane + o, g_row,
                                        X + k * x_plane + shift[q] + i, row, count,
                                        D + (((group * n_points + k) * n_pieces + q) * p.outs + o) * w_row + i, w_row, add);
        }
    }

    // Transforms the summed products of one vector of inputs of one output channel back into taps.
    void taps_of(const Matrices<T>& all, const T* sums, int64_t size_of_part, int64_t parts, int64_t group, int64_t each,
                 int64_t o, int64_t i, T* weight, T* staged, T* room) const {
        const Shape size = piece(p), count = pieces(p);
        T *raw = staged, *cut = staged + n_taps * L;
        const int64_t step = n_pieces * p.outs * w_row, stride[3] = {size.n[1] * size.n[2] * L, size.n[2] * L, L};
        const int64_t in_stride[3] = {point.n[1] * point.n[2] * L, point.n[2] * L, L};
        T* whole = room + kRoom;  // where the transformed data was
        int64_t q[3], j[3], at = 0;
        for (q[0] = 0; q[0] < count.n[0]; ++q[0])
            for (q[1] = 0; q[1] < count.n[1]; ++q[1])
                for (q[2] = 0; q[2] < count.n[2]; ++q[2], ++at) {
                    for (int64_t k = 0; k < n_points; ++k) {
                        Vec<T> total{};
                        const int64_t from = (group * n_points + k) * step + (at * p.outs + o) * w_row + i;
                        // a part has sums of the groups that its blocks are of
                        for (int64_t s = 0; s < parts; ++s) {
                            const int64_t first = n_blocks * s / parts, end = n_blocks * (s + 1) / parts;
                            if (first < end && first < (group + 1) * each && end > group * each)
                                total += load(sums + s * size_of_part + from);
                        }
                        store(whole + k * L, total);
                    }
                    one(all, 2, point, size, false, whole, in_stride, cut, stride, room);
                    const T* c = cut;
                    for (j[0] = 0; j[0] < size.n[0]; ++j[0])
                        for (j[1] = 0; j[1] < size.n[1]; ++j[1])
                            for (j[2] = 0; j[2] < size.n[2]; ++j[2], c += L) {
                                int64_t t = tap(q, j);
                                if (t >= 0) store(raw + t * L, load(c));
                            }
                }
        scatter<T>(raw, L, Vec<T>{}, -T(__builtin_inf()), weight + group * p.w_group + o * p.w_out + i * p.w_in, p.w_in,
                   min(L, p.ins - i), p.w_tap, n_taps);
    }

    void backward_weights(const T* in, const T* grad, T* weight, T* scratch) const {
        const Matrices<T> all = matrices(scratch, true);
        T *room = scratch + matrix_size, *sums = room + p.threads * thread_size(true);
        const int64_t n = parts(), size = pad_stride_for_cache_sets<T>(w_size * p.groups),
                      share = round_up(ceil_div(p.outs, p.split), kRows);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
        {
#pragma omp for schedule(static, 1)
            for (int64_t job = 0; job < n * p.split; ++job) {
                const int64_t part = job / p.split, first = job % p.split * share, end = min(p.outs, first + share);
                T* mine = room + thread_number() * thread_size(true);
                if (first < end)
                    sum(all, in, grad, sums + part * size, n_blocks * part / n, n_blocks * (part + 1) / n, first, end, mine);
            }
#pragma omp for schedule(static)
            for (int64_t job = 0; job < p.groups * p.outs; ++job) {
                const int64_t group = job / p.outs, each = n_blocks / p.groups;
                T* mine = room + thread_number() * thread_size(true);
                for (int64_t i = 0; i < p.ins; i += L)
                    taps_of(all, sums, size, n, group, each, job % p.outs, i, weight, mine, mine + stage);
            }
        }
    }
};

template <class T> size_t kernel_bytes_of(const Winograd& p) { return size_t(Engine<T>(p).kernel_size()) * sizeof(T); }
template <class T> size_t scratch_of(const Winograd& p, bool weights, bool kept) { return Engine<T>(p).scratch(weights, kept); }
template <class T> void prepare_of(const Winograd& p, const void* weight, void* kept, char* scratch) {
    const Engine<T> e(p);
    T* room = reinterpret_cast<T*>(scratch);
    e.prepare(static_cast<const T*>(weight), static_cast<T*>(kept), room, room + e.matrix_size, p.threads);
}
template <class T>
bool run_of(const Winograd& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
    return Engine<T>(p).run(static_cast<const T*>(in), static_cast<const T*>(weight), static_cast<const T*>(kept),
                            static_cast<const T*>(bias), static_cast<T*>(out), reinterpret_cast<T*>(scratch));
}
template <class T> void backward_weights_of(const Winograd& p, const void* in, const void* grad, void* weight, char* scratch) {
    Engine<T>(p).backward_weights(static_cast<const T*>(in), static_cast<const T*>(grad), static_cast<T*>(weight),
                                  reinterpret_cast<T*>(scratch));
}

bool wide_type(const Winograd& p) { return p.type == Type::float64; }

}  // namespace

const WinogradKernels winograd = {
    [](const Winograd& p) { return wide_type(p) ? kernel_bytes_of<double>(p) : kernel_bytes_of<float>(p); },
    [](const Winograd& p, bool weights, bool kept) {
        return wide_type(p) ? scratch_of<double>(p, weights, kept) : scratch_of<float>(p, weights, kept);
    },
    [](const Winograd& p, const void* weight, void* kept, char* scratch) {
        (wide_type(p) ? prepare_of<double> : prepare_of<float>)(p, weight, kept, scratch);
    },
    [](const Winograd& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
        return (wide_type(p) ? run_of<double> : run_of<float>)(p, in, weight, kept, bias, out, scratch);
    },
    [](const Winograd& p, const void* in, const void* grad, void* weight, char* scratch) {
        (wide_type(p) ? backward_weights_of<double> : backward_weights_of<float>)(p, in, grad, weight, scratch);
    },
};

}  // namespace NINEFOLD_NS
