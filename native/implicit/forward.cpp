// Convolutions as products of matrices, any step, dilation and border: the columns that im2col would write out are packed a block
// at a time, or not at all. In contiguous memory positions are the columns of the product and are packed; in channels-last memory
// pixels are its rows, which a tile reads where they lie, through a table of addresses.
//
// The sum over (input, tap) is cut into chunks whose packed panel stays in the nearest cache.
#include "common/threads.hpp"
#include "implicit/product.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kDeep = 256;  // summands of a chunk
constexpr int64_t kLines = 4;   // of positions, assembled before they are packed
constexpr int64_t kUnits = 16;  // of a kernel, packed together

// Taps [t, t + nt) and inputs [i, i + ni), from summand `first` on. Where pixels are rows, neighbouring summands are inputs, else
// taps, if the weight does not have it otherwise. A chunk has all of what lies inside, or a part of it for one of the others.
struct Chunk {
    int64_t t, nt, i, ni, first;
    int64_t count() const { return nt * ni; }
};

template <class T> struct Product {
    static constexpr int L = kLanes<T>, W = kPanel<T>;

    const Implicit& p;
    int64_t n_taps, each, total;  // positions of an image, and of the batch
    int64_t plane;                // of a unit; an odd number of lines, so that units fall into different sets of the cache
    int64_t summands, unit, units, share;  // rows or columns of the packed kernel that lie beside one another
    int64_t deep, panels;                  // summands of the longest chunk; panels of a block, of pixels or of channels
    int64_t n_blocks;
    bool in_place, taps_inside;  // the weight's rows are read where they lie; neighbouring summands are taps

    explicit Product(const Implicit& plan) : p(plan) {
        n_taps = taps(p), each = positions(p), total = p.batch * each;
        summands = n_taps * p.ins;
        unit = p.rows ? W : kRows, units = ceil_div(p.outs, unit);
        share = min(round_up(ceil_div(p.outs, p.split), unit), round_up(p.outs, unit));
        const bool inputs_inside = p.w_in == 1 && p.w_tap == p.ins && p.ins > 1;
        in_place = !p.rows && !p.flip && ((p.w_in == n_taps && p.w_tap == 1) || inputs_inside);
        taps_inside = !p.rows && !(in_place && inputs_inside);
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        plane = (ceil_div(summands * unit, line) | 1) * line;
        const int64_t inner = taps_inside ? n_taps : p.ins;
        deep = inner <= kDeep ? min(kDeep / inner * inner, summands) : ceil_div(inner, ceil_div(inner, kDeep));
        panels = ceil_div(p.block, W);
        n_blocks = ceil_div(total, p.block);
    }

    Chunk chunk(int64_t first) const {
        const int64_t inner = taps_inside ? n_taps : p.ins, outer = first / inner, at = first % inner;
        const int64_t many = inner <= kDeep ? min(deep, summands - first) / inner : 1,
                      part = inner <= kDeep ? inner : min(deep, inner - at);
        return taps_inside ? Chunk{at, part, outer, many, first} : Chunk{outer, many, at, part, first};
    }
    int64_t tap(int64_t t) const { return (p.flip ? n_taps - 1 - t : t) * p.w_tap; }

    int64_t line_size() const { return panels * W + W; }
    int64_t kernel_size() const { return in_place ? 0 : p.groups * units * plane; }

    // In elements: packed panels; pieces or addresses; what is collected beside the result; zeros.
    int64_t table_size() const {
        const int64_t pieces = p.rows ? 0 : p.block * int64_t(sizeof(Piece));
        const int64_t addresses = (p.rows ? max(1, deep / p.ins) * p.block : share) * int64_t(sizeof(T*));
        return ceil_div(pieces + addresses, int64_t(sizeof(T)));
    }
    int64_t thread_size() const {
        const int64_t packed = p.rows ? 0 : panels * deep * W,
                      edge = p.rows ? p.block * W : panels * share * W + kLines * line_size();
        return round_up(packed + edge + table_size() + round_up(p.ins, L) + round_up(p.outs, W) + W, 64);
    }
    size_t scratch(bool kept) const { return size_t(p.threads * thread_size() + (kept ? 0 : kernel_size()) + 64) * sizeof(T); }

    // Packs input i of a unit. Where inputs are not neighbours in memory, the units beside it are packed before the next input:
    // what they read lies together, and rows of the weight are pages apart.
    NINEFOLD_INLINE void prepare_input(const T* from, int64_t lanes, int64_t i, T* to) const {
        from += i * p.w_in;
        if (p.rows) {
            const int64_t step = p.ins * W;
            T* there = to + i * W + (p.flip ? (n_taps - 1) * step : 0);
            for (int v = 0; v < kVectors; ++v)
                gather<T>(from + v * L * p.w_out, p.w_out, max(0, min(L, lanes - v * L)), p.w_tap, n_taps, there + v * L,
                          p.flip ? -step : step);
        } else {
            T* there = to + i * n_taps * kRows;
            for (int64_t t = 0; t < n_taps; ++t, there += kRows)
                for (int64_t l = 0; l < kRows; ++l) there[l] = l < lanes ? from[l * p.w_out + tap(t)] : T(0);
        }
    }

    void prepare(const T* weight, T* to, int64_t threads) const {
        if (in_place) return;
        const int64_t together = ceil_div(units, max(threads, ceil_div(units, kUnits))), jobs = ceil_div(units, together);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t job = 0; job < p.groups * jobs; ++job) {
            const int64_t group = job / jobs, first = job % jobs * together, end = min(units, first + together);
            const T* from = weight + group * p.w_group;
            T* here = to + group * units * plane;
            auto lanes = [&](int64_t u) { return min(unit, p.outs - u * unit); };
            if (p.rows && p.w_in == 1) {
                for (int64_t u = first; u < end; ++u)
                    for (int64_t t = 0; t < n_taps; ++t)
                        for (int v = 0; v < kVectors; ++v)
                            gather<T>(from + (u * W + v * L) * p.w_out + tap(t), p.w_out, max(0, min(L, lanes(u) - v * L)), 1,
                                      p.ins, here + u * plane + t * p.ins * W + v * L, W);
            } else if (p.w_out == 1 && n_taps == 1) {
                const int64_t whole = min(end, p.outs / unit);
                for (int64_t i = 0; i < p.ins; ++i) {
                    for (int64_t u = first; u < whole; ++u) {
                        const T* row = from + i * p.w_in + u * unit;
                        T* there = here + u * plane + i * unit;
                        if (p.rows) __builtin_memcpy(there, row, sizeof(T) * W);
                        else __builtin_memcpy(there, row, sizeof(T) * kRows);
                    }
                    if (whole < end) prepare_input(from + whole * unit, lanes(whole), i, here + whole * plane);
                }
            } else {
                for (int64_t i = 0; i < p.ins; ++i)
                    for (int64_t u = first; u < end; ++u) prepare_input(from + u * unit * p.w_out, lanes(u), i, here + u * plane);
            }
        }
    }

    // One channel's pieces, side by side; may write a vector past the last.
    static NINEFOLD_INLINE void line(const Piece* pieces, int64_t n, const T* in, T* to) {
        for (int64_t s = 0; s < n; ++s) {
            const Piece& piece = pieces[s];
            const T* from = in + max(piece.from, 0);
            T* there = to + piece.at;
            int64_t e = 0;
            if (piece.from < 0) {
                for (; e < piece.count; e += L) store(there + e, Vec<T>{});
            } else if (piece.step == 1) {
                for (; e + L <= piece.count; e += L) store(there + e, load(from + e));
                if (e < piece.count) store(there + e, load_first(from + e, piece.count - e));
            } else {
                if (piece.step == 2)
                    for (; e + L < piece.count; e += L) store(there + e, evens<T>(load(from + 2 * e), load(from + 2 * e + L)));
                for (; e < piece.count; ++e) there[e] = from[e * piece.step];
            }
        }
    }

    // packed[panel][summand][position]: what the outputs [first, first + count) read.
    void pack(const Chunk& c, const T* in, int64_t first, int64_t count, Piece* pieces, T* row, T* to) const {
        const int64_t panel = c.count() * W;
        for (int64_t t = 0; t < c.nt; ++t) {
            const int64_t n = pieces_of(p, c.t + t, first, count, pieces);
            for (int64_t i = 0; i < c.ni;
                 i += kLines) {  // a line is read some lines after it was written: loads of half-written vectors wait
                const int64_t lines = min(kLines, c.ni - i);
                for (int64_t l = 0; l < lines; ++l) line(pieces, n, in + (c.i + i + l) * p.in_c, row + l * line_size());
                for (int64_t l = 0; l < lines; ++l) {
                    T* there = to + (taps_inside ? (i + l) * c.nt + t : t * c.ni + i + l) * W;
                    const T* from = row + l * line_size();
                    for (int64_t j = 0; j < count; j += W, there += panel)
                        for (int v = 0; v < kVectors; ++v) store(there + v * L, load(from + j + v * L));
                }
            }
        }
    }

    // Positions [first, first + count) as columns of the product, outputs [o, end) of a group as rows.
    void columns(int64_t group, int64_t first, int64_t count, int64_t o, int64_t end, const T* in, const T* weight, const T* U,
                 const T* bias, T* out, T* mine) const {
        T *packed = mine, *edge = packed + panels * deep * W, *row = edge + panels * share * W;
        Piece* pieces = reinterpret_cast<Piece*>(row + kLines * line_size());
        for (int64_t l = 0; l < kLines; ++l)
            for (int64_t k = count; k < panels * W; ++k) row[l * line_size() + k] = 0;  // columns that no position fills
        const T** rows = reinterpret_cast<const T**>(pieces + p.block);
        for (int64_t k = o; in_place && k < end; ++k) rows[k - o] = weight + group * p.w_group + k * p.w_out;
        T* result = out + group * p.outs * p.out_c;
        const T none[W] = {};
        Ahead ahead = columns_ahead(in + group * p.ins * p.in_c, first + count, ceil_div(count, W) * ceil_div(end - o, kRows));
        for (int64_t k = 0; k < summands;) {
            const Chunk c = chunk(k);
            pack(c, in + group * p.ins * p.in_c, first, count, pieces, row, packed);
            k += c.count();
            const T floor = k == summands ? T(p.floor) : -T(__builtin_inf());
            for (int64_t j = 0; j < count; j += W) {
                const int64_t n = (first + j) / each, r = (first + j) % each, wide = min(W, count - j);
                const bool whole = p.out_p == 1 && wide % L == 0 && r + wide <= each;
                for (int64_t i = o; i < end; i += kRows) {
                    const Left<T> left =
                        in_place
                            ? Left<T>{nullptr, rows + (i - o), 0, c.first, 1, c.count()}
                            : Left<T>{U + (group * units + i / kRows) * plane + c.first * kRows, nullptr, 0, 0, 1, c.count()};
                    T* to = whole ? result + n * p.out_n + i * p.out_c + r : edge + (j / W * share + i - o) * W;
                    const int64_t to_row = whole ? p.out_c : W, lines = min(kRows, end - i);
                    const T* start = to;
                    int64_t start_row = to_row;
                    T added[kRows * W];
                    if (c.first == 0) {
                        start = none, start_row = 0;
                        if (bias != nullptr) {
                            for (int64_t l = 0; l < lines; ++l)
                                for (int v = 0; v < kVectors; ++v)
                                    store(added + l * W + v * L, broadcast(bias[group * p.outs + i + l]));
                            start = added, start_row = W;
                        }
                    }
                    ahead.some();
                    tile_of<T>(lines, ceil_div(wide, L), left, packed + j / W * c.count() * W, W, start, start_row, to, to_row,
                               floor);
                }
            }
        }
        for (int64_t j = 0; j < count; j += W) {
            const int64_t wide = min(W, count - j), r = (first + j) % each;
            if (p.out_p == 1 && wide % L == 0 && r + wide <= each) continue;
            for (int64_t l = 0; l < wide;) {
                const int64_t n = (first + j + l) / each, at = (first + j + l) % each, here = min(each - at, wide - l);
                for (int64_t i = o; i < end; ++i) {
                    const T* from = edge + (j / W * share + i - o) * W + l;
                    T* to = result + n * p.out_n + i * p.out_c + at * p.out_p;
                    for (int64_t e = 0; e < here; ++e) to[e * p.out_p] = from[e];
                }
                l += here;
            }
        }
    }

    // The block of positions from `first` on, under one tap; `tiles` of each chunk.
    Ahead columns_ahead(const T* in, int64_t first, int64_t tiles) const {
        const int64_t n = first / each, r = first % each, count = min(p.block, each - r);
        if (!p.plain || p.in[2] != 1 || first >= total) return Ahead::nothing();
        return Ahead::over(in + n * p.in_n + r * p.in[2], count * p.in[2] * int64_t(sizeof(T)), p.in_c * int64_t(sizeof(T)),
                           p.ins, tiles * ceil_div(summands, deep));
    }
    Ahead rows_ahead(const T* in, int64_t first, int64_t tiles) const {
        if (!p.plain || first >= total) return Ahead::nothing();
        return Ahead::over(in + first * p.in[2], p.ins * int64_t(sizeof(T)), p.in[2] * int64_t(sizeof(T)),
                           min(p.block, total - first), tiles * ceil_div(summands, deep));
    }

    // Positions as rows of the product, outputs as columns.
    void rows(int64_t group, int64_t first, int64_t count, int64_t o, int64_t end, const T* in, const T* U, const T* bias, T* out,
              T* mine) const {
        T *edge = mine, *zeros = edge + p.block * W, *added = zeros + round_up(p.ins, L);
        const T** pixels = reinterpret_cast<const T**>(added + round_up(p.outs, W));
        for (int64_t i = 0; i < round_up(p.ins, L); ++i) zeros[i] = 0;
        for (int64_t i = o; i < round_up(end, W); ++i) added[i] = bias != nullptr && i < p.outs ? bias[group * p.outs + i] : T(0);
        T* result = out + first * p.out_p + group * p.outs * p.out_c;
        Ahead ahead = rows_ahead(in + group * p.ins, first + count, ceil_div(count, kRows) * ceil_div(end - o, W));
        const int64_t rest = (end - o) % W, odd = rest % L ? end - rest : end;  // channels from here on fill no whole vectors
        for (int64_t k = 0; k < summands;) {
            const Chunk c = chunk(k);
            if (c.i == 0 || k == 0)
                for (int64_t t = 0; t < c.nt; ++t)
                    pixels_of<T>(p, c.t + t, first, count, in + group * p.ins, zeros, pixels + t * count);
            k += c.count();
            const T floor = k == summands ? T(p.floor) : -T(__builtin_inf());
            for (int64_t i = o; i < end; i += W) {
                const T* panel = U + (group * units + i / W) * plane + c.first * W;
                for (int64_t r = 0; r < count; r += kRows) {
                    const Left<T> left{nullptr, pixels + r, count, c.i, c.nt, c.ni};
                    T* to = i < odd ? result + r * p.out_p + i : edge + r * W;
                    const int64_t to_row = i < odd ? p.out_p : W;
                    ahead.some();
                    tile_of<T>(count - r, min(kVectors, ceil_div(end - i, L)), left, panel, W, c.first == 0 ? added + i : to,
                               c.first == 0 ? 0 : to_row, to, to_row, floor);
                }
            }
        }
        for (int64_t r = 0; r < count && odd < end; ++r)
            for (int64_t i = odd; i < end; ++i) result[r * p.out_p + i] = edge[r * W + i - odd];
    }

    void run(const T* in, const T* weight, const T* kept, const T* bias, T* out, T* room) const {
        const T* U = kept;
        if (kept == nullptr && !in_place) {
            T* made = room + p.threads * thread_size();
            prepare(weight, made, p.threads);
            U = made;
        }
        // neighbouring blocks go to one thread, a few at a time, which asks for the next one's data
        const int64_t jobs = p.groups * n_blocks * p.split, run = max(1, min(8, jobs / (4 * p.threads)));
#pragma omp parallel for schedule(dynamic) num_threads(p.threads) if (p.threads > 1)
        for (int64_t k = 0; k < ceil_div(jobs, run); ++k)
            for (int64_t job = k * run; job < min(jobs, (k + 1) * run); ++job) {
                const int64_t part = job % p.split, group = job / p.split % p.groups, block = job / p.split / p.groups;
                const int64_t o = part * share, end = min(p.outs, o + share), first = block * p.block,
                              count = min(p.block, total - first);
                T* mine = room + this_thread() * thread_size();
                if (o >= end) continue;
                if (p.rows) rows(group, first, count, o, end, in, U, bias, out, mine);
                else columns(group, first, count, o, end, in, weight, U, bias, out, mine);
            }
    }
};

template <class T> size_t kernel_bytes_of(const Implicit& p) { return size_t(Product<T>(p).kernel_size()) * sizeof(T); }
template <class T> size_t scratch_of(const Implicit& p, bool kept) { return Product<T>(p).scratch(kept); }
template <class T> void prepare_of(const Implicit& p, const void* weight, void* kept) {
    Product<T>(p).prepare(static_cast<const T*>(weight), static_cast<T*>(kept), p.threads);
}
template <class T>
void run_of(const Implicit& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
    Product<T>(p).run(static_cast<const T*>(in), static_cast<const T*>(weight), static_cast<const T*>(kept),
                      static_cast<const T*>(bias), static_cast<T*>(out), reinterpret_cast<T*>(scratch));
}

bool wide_type(const Implicit& p) { return p.type == Type::float64; }

}  // namespace

const ImplicitKernels implicit = {
    [](const Implicit& p) { return p.small_spatial ? 0
                                   : wide_type(p)  ? kernel_bytes_of<double>(p)
                                                   : kernel_bytes_of<float>(p); },
    [](const Implicit& p, bool weights, bool kept) {
        if (p.small_spatial) return small_spatial_scratch(p, weights);
        return weights        ? implicit_backward_weights_scratch(p)
               : wide_type(p) ? scratch_of<double>(p, kept)
                              : scratch_of<float>(p, kept);
    },
    [](const Implicit& p, const void* weight, void* kept) {
        (wide_type(p) ? prepare_of<double> : prepare_of<float>)(p, weight, kept);
    },
    [](const Implicit& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
        if (p.small_spatial) return small_spatial_run(p, in, weight, bias, out, scratch);
        (wide_type(p) ? run_of<double> : run_of<float>)(p, in, weight, kept, bias, out, scratch);
    },
    [](const Implicit& p, const void* in, const void* grad, void* weight, char* scratch) {
        (p.small_spatial ? small_spatial_backward_weights : implicit_backward_weights)(p, in, grad, weight, scratch);
    },
};

}  // namespace NINEFOLD_NS
