// What a product of an implicit matrix is made of: the register-blocked tile, and where the pixels under a tap lie.
#pragma once
#include "common/gemm.hpp"
#include "implicit/implicit.hpp"

namespace NINEFOLD_NS {
namespace {

// Rows of the left operand: packed kRows beside one another, or read where they lie, in `count` segments of `length`:
// row i of segment s begins at rows[s * next + i] + from.
template <class T> struct Left {
    const T* packed;
    const T* const* rows;
    int64_t next, from, count, length;
};

// c = larger(floor, start + left x b) for MR rows and NV vectors; rows of b are `step` apart, kPanel<T> where it is packed.
template <class T, int MR, int NV>
__attribute__((noinline)) void tile(const Left<T>& a, const T* b, int64_t step, const T* start, int64_t start_row, T* c,
                                    int64_t ldc, T floor) {
    Vec<T> acc[MR][NV];
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) acc[i][v] = load(start + i * start_row + v * kLanes<T>);
    auto add = [&](auto&& left) __attribute__((always_inline)) {
        Vec<T> right[NV];
        for (int v = 0; v < NV; ++v) right[v] = load(b + v * kLanes<T>);
        b += step;
        for (int i = 0; i < MR; ++i) {
            const Vec<T> x = broadcast(left(i));
            for (int v = 0; v < NV; ++v) acc[i][v] += x * right[v];
        }
    };
    if (a.packed != nullptr) {
        const T* left = a.packed;
        for (int64_t k = a.count * a.length; k > 0; --k, left += kRows)
            add([&](int i) __attribute__((always_inline)) { return left[i]; });
    } else {
        for (int64_t s = 0; s < a.count; ++s) {
            const T* at[MR];
            for (int i = 0; i < MR; ++i) at[i] = a.rows[s * a.next + i] + a.from;
            for (int64_t k = 0; k < a.length; ++k) add([&](int i) __attribute__((always_inline)) { return at[i][k]; });
        }
    }
    const Vec<T> lowest = broadcast(floor);
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) store(c + i * ldc + v * kLanes<T>, larger(acc[i][v], lowest));
}

template <class T, int MR = kRows>
NINEFOLD_INLINE void tile_of(int64_t rows, int64_t vectors, const Left<T>& a, const T* b, int64_t step, const T* start,
                             int64_t start_row, T* c, int64_t ldc, T floor) {
    if constexpr (MR > 1) {
        if (rows < MR) return tile_of<T, MR - 1>(rows, vectors, a, b, step, start, start_row, c, ldc, floor);
    }
    if (vectors == kVectors) return tile<T, MR, kVectors>(a, b, step, start, start_row, c, ldc, floor);
    return tile<T, MR, 1>(a, b, step, start, start_row, c, ldc, floor);
}

// Output positions [at, at + count) of a block read from, from + step, ... of an image's channel; from < 0 stands for zeros.
struct Piece {
    int64_t at, from, count, step;
};

constexpr int64_t kAsked = 160 << 10;  // bytes of a block up to which the cache has room for the next one

// Asks for what the next block reads, some lines with every tile of this one, so that memory and multiplication overlap: `rows`
// rows of `bytes`, `stride` bytes apart.
struct Ahead {
    const char* at;
    int64_t bytes, stride, rows, each, row, next;

    static Ahead nothing() { return {nullptr, 0, 0, 0, 0, 0, 0}; }
    // Spread over so many tiles.
    static Ahead over(const void* at, int64_t bytes, int64_t stride, int64_t rows, int64_t tiles) {
        if (rows * bytes > kAsked) return nothing();
        return {static_cast<const char*>(at), bytes, stride, rows, ceil_div(rows * ceil_div(bytes, 64), max(1, tiles)), 0, 0};
    }
    NINEFOLD_INLINE void some() {
        for (int64_t k = 0; k < each && row < rows; ++k) {
            __builtin_prefetch(at + next, 0, 2);
            if ((next += 64) >= bytes) next = 0, ++row, at += stride;
        }
    }
};

NINEFOLD_INLINE int64_t positions(const Implicit& p) { return p.axis[0].size * p.axis[1].size * p.axis[2].size; }
NINEFOLD_INLINE int64_t taps(const Implicit& p) { return p.axis[0].taps * p.axis[1].taps * p.axis[2].taps; }

// Calls visit(piece) for the pieces of outputs [first, first + count) of the whole batch, in order: what they read under a tap.
// Along x positions follow one another (`every` is 1), so that there is a piece for each run that a row of outputs reads.
template <class Visit> NINEFOLD_INLINE void each_piece(const Implicit& p, int64_t tap, int64_t first, int64_t count,
                                                       Visit visit) {
    const ImplicitAxis &az = p.axis[0], &ay = p.axis[1], &ax = p.axis[2];
    const int64_t tx = tap % ax.taps, ty = tap / ax.taps % ay.taps, tz = tap / ax.taps / ay.taps;
    int64_t x = first % ax.size, y = first / ax.size, z = y / ay.size, n = z / az.size;
    y %= ay.size, z %= az.size;
    for (int64_t done = 0; done < count;) {
        const int64_t in_row = min(ax.size - x, count - done), sz = az.under(tz, z), sy = ay.under(ty, y);
        if (sz < 0 || sy < 0) {
            visit(Piece{done, -1, in_row, 0});
        } else {
            const int64_t base = n * p.in_n + sz * p.in[0] + sy * p.in[1];
            int64_t at = ax.first + x * ax.step + tx * ax.tap;
            const Run *run = ax.source.of(at), *end = ax.source.runs + ax.source.n_runs;
            for (int64_t k = 0; k < in_row;) {
                const int64_t until = at < 0       ? 0
                                      : run == end ? at + in_row * ax.step
                                                   : run->to + run->count;  // where another run begins
                const int64_t many = min(in_row - k, ceil_div(until - at, ax.step));
                const bool zeros = at < 0 || run == end || run->from < 0;
                visit(Piece{done + k, zeros ? -1 : base + (run->from + (at - run->to) * run->step) * p.in[2], many,
                            zeros ? 0 : ax.step * run->step * p.in[2]});
                k += many, at += many * ax.step;
                while (run != end && at >= run->to + run->count) ++run;
            }
        }
        done += in_row, x = 0;
        if (++y == ay.size) {
            y = 0;
            if (++z == az.size) z = 0, ++n;
        }
    }
}

// The pieces of outputs [first, first + count) of the whole batch under a tap; never more than `count`.
NINEFOLD_INLINE int64_t pieces_of(const Implicit& p, int64_t tap, int64_t first, int64_t count, Piece* to) {
    int64_t made = 0;
    if (p.plain) {
        const int64_t each = positions(p);
        for (int64_t done = 0; done < count;) {
            const int64_t n = (first + done) / each, r = (first + done) % each, in_row = min(each - r, count - done);
            to[made++] = {done, n * p.in_n + r * p.in[2], in_row, p.in[2]};
            done += in_row;
        }
        return made;
    }
    each_piece(p, tap, first, count, [&](const Piece& piece) __attribute__((always_inline)) { to[made++] = piece; });
    return made;
}

// Where the channels of each pixel begin that outputs [first, first + count) read under a tap; at `zeros` where it is outside.
template <class T> NINEFOLD_INLINE void pixels_of(const Implicit& p, int64_t tap, int64_t first, int64_t count, const T* in,
                                                  const T* zeros, const T** to) {
    each_piece(p, tap, first, count, [&](const Piece& piece) __attribute__((always_inline)) {
        for (int64_t k = 0; k < piece.count; ++k) to[piece.at + k] = piece.from < 0 ? zeros : in + piece.from + k * piece.step;
    });
}

}  // namespace
}  // namespace NINEFOLD_NS
