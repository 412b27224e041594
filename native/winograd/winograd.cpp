// Winograd's convolution. A block of tiles is transformed (B^T) into X[point][tile][channel]. It is multiplied point by point
// with the transformed kernel U (G). The products M are transformed back (A^T) before the next block: only the kernel leaves the
// cache. Vectors run over channels in both memory formats: contiguous rows are transposed while they are staged and written.
#include "common/threads.hpp"
#include "winograd/weight_stages.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kChunk = 320;  // summands of a product whose packed panel stays in the nearest cache

// M[point][tile][channel] = sum over pieces and inputs, for channels [o, o + channels).
template <class T>
inline void multiply(const Blocks<T>& s, const T* X, const T* U, T* M, int64_t count, const int64_t* row, const int64_t* shift,
                     int64_t o, int64_t channels) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Winograd& p = s.p;
    const int64_t length = min(p.ins, kChunk), together = max(1, kChunk / p.ins);
    for (int64_t k = 0; k < s.n_points; ++k)
        for (int64_t q = 0; q < s.n_pieces; q += together)
            for (int64_t i = 0; i < p.ins; i += length) {
                const Segments over{shift + q, min(together, s.n_pieces - q), min(length, p.ins - i)};
                for (int64_t c = 0; c < channels; c += W) {
                    const T* panel = U + k * s.u_plane + (o + c) / W * s.summands * W + (q * p.ins + i) * W;
                    const int64_t vectors = min(kVectors, ceil_div(channels - c, L));
                    for (int64_t t = 0; t < count; t += kRows)
                        product_of<T>(count - t, vectors, X + k * s.x_plane + i, row + t, over, panel,
                                      M + k * s.m_plane + t * s.m_row + c, s.m_row, q + i > 0);
                }
            }
}

template <class T>
inline void prepare(const Blocks<T>& s, const T* weight, T* U, T* matrix_room, T* room, int64_t threads) {
    const Winograd& p = s.p;
    const Matrices<T> all = matrices<T>(s, matrix_room, false);
    const int64_t each = max(1, ceil_div(p.ins, 8)), cuts = ceil_div(p.ins, each);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < p.groups * s.panels * cuts; ++job) {
        const int64_t thread = this_thread(), group = job / (s.panels * cuts), panel = job / cuts % s.panels,
                      i = job % cuts * each;
        T* mine = room + thread * s.thread_size(false);
        transform_kernel<T>(s, all, weight + group * p.w_group, U + group * s.n_points * s.u_plane, panel, i,
                            min(p.ins, i + each), mine, mine + s.stage);
    }
}

template <class T> bool zero(Vec<T> v) {
    bool all = true;
    for (int l = 0; l < kLanes<T>; ++l) all = all && v[l] == T(0);
    return all;
}

// Returns whether all of the result is finite, before the bias.
template <class T>
inline bool run(const Blocks<T>& s, const T* in, const T* weight, const T* kept, const T* bias, T* out, T* scratch) {
    constexpr int W = kPanel<T>;
    const Winograd& p = s.p;
    T* room = scratch + s.matrix_size;
    const T* U = kept;
    if (kept == nullptr) {
        T* made = room + p.threads * s.thread_size(false);
        prepare<T>(s, weight, made, scratch, room, p.threads);
        U = made;
    }
    const Matrices<T> all = matrices<T>(s, scratch, false);
    const int64_t share = round_up(ceil_div(p.outs, p.split), W);
    bool finite = true;
#pragma omp parallel for schedule(dynamic) num_threads(p.threads) if (p.threads > 1)
    for (int64_t job = 0; job < s.n_blocks * p.split; ++job) {
        const Place b = s.place(job / p.split);
        T *mine = room + this_thread() * s.thread_size(false), *transforms = mine + s.stage, *X = transforms + s.kRoom;
        T* M = X + s.n_points * s.x_plane;
        int64_t *row = reinterpret_cast<int64_t*>(M + s.n_points * s.m_plane), *shift = row + s.tiles;
        const int64_t first = job % p.split * share, end = min(p.outs, first + share);
        if (first >= end) continue;
        const int64_t count = s.offsets(b, row, shift);
        Vec<T> spoilt{};
        transform_data<T>(s, all, b, in, false, X, mine, transforms);
        for (int64_t o = first; o < end; o += s.out_block) {
            const int64_t channels = min(s.out_block, end - o);
            multiply<T>(s, X, U + b.group * s.n_points * s.u_plane, M, count, row, shift, o, channels);
            store_tiles<T>(s, all, b, M, o, channels, bias, out, mine, transforms, spoilt);
        }
        if (!zero<T>(spoilt)) {
#pragma omp atomic write
            finite = false;
        }
    }
    return finite;
}

template <class T>
inline void backward_weights(const Blocks<T>& s, const T* in, const T* grad, T* weight, T* scratch) {
    constexpr int L = kLanes<T>;
    const Winograd& p = s.p;
    const Matrices<T> all = matrices<T>(s, scratch, true);
    T *room = scratch + s.matrix_size, *sums = room + p.threads * s.thread_size(true);
    const int64_t n = s.parts(), size = pad_stride_for_cache_sets<T>(s.w_size * p.groups),
                  share = round_up(ceil_div(p.outs, p.split), kRows);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
    {
#pragma omp for schedule(static, 1)
        for (int64_t job = 0; job < n * p.split; ++job) {
            const int64_t part = job / p.split, first = job % p.split * share, end = min(p.outs, first + share);
            T* mine = room + this_thread() * s.thread_size(true);
            if (first < end)
                sum_products<T>(s, all, in, grad, sums + part * size, s.n_blocks * part / n, s.n_blocks * (part + 1) / n, first,
                                end, mine);
        }
#pragma omp for schedule(static)
        for (int64_t job = 0; job < p.groups * p.outs; ++job) {
            const int64_t group = job / p.outs, each = s.n_blocks / p.groups;
            T* mine = room + this_thread() * s.thread_size(true);
            for (int64_t i = 0; i < p.ins; i += L)
                transform_sums<T>(s, all, sums, size, n, group, each, job % p.outs, i, weight, mine, mine + s.stage);
        }
    }
}

template <class T> size_t kernel_bytes_of(const Winograd& p) { return size_t(Blocks<T>(p).kernel_size()) * sizeof(T); }
template <class T> size_t scratch_of(const Winograd& p, bool weights, bool kept) { return Blocks<T>(p).scratch(weights, kept); }
template <class T> void prepare_of(const Winograd& p, const void* weight, void* kept, char* scratch) {
    const Blocks<T> s(p);
    T* room = reinterpret_cast<T*>(scratch);
    prepare<T>(s, static_cast<const T*>(weight), static_cast<T*>(kept), room, room + s.matrix_size, p.threads);
}
template <class T>
inline bool run_of(const Winograd& p, const void* in, const void* weight, const void* kept, const void* bias, void* out,
                   char* scratch) {
    return run<T>(Blocks<T>(p), static_cast<const T*>(in), static_cast<const T*>(weight), static_cast<const T*>(kept),
                  static_cast<const T*>(bias), static_cast<T*>(out), reinterpret_cast<T*>(scratch));
}
template <class T> void backward_weights_of(const Winograd& p, const void* in, const void* grad, void* weight, char* scratch) {
    backward_weights<T>(Blocks<T>(p), static_cast<const T*>(in), static_cast<const T*>(grad), static_cast<T*>(weight),
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
