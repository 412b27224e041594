// The transforms of a short product of polynomials along one axis, for vectors of channels. Points are 0 where there is an even
// number n of them, then pairs +a, -a, then infinity. The row of -a is the row of a with odd columns negated, so that a pair
// shares all products.
#pragma once
#include "common/simd.hpp"

namespace NINEFOLD_NS {

// Applies one transform to `count` lines of vectors, which are `step` elements apart along a line and `line` from line to line.
template <class T> using Pass = void (*)(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count);

// n -> n: the remainders of the data. Row p of the matrix holds M(x) / (x - p), the last row M(x).
template <class T, int N>
void data_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
    constexpr int Z = N % 2 == 0;  // M(x) has the powers of this parity
    for (int64_t c = 0; c < count; ++c, from += line, to += to_line) {
        Vec<T> x[N];
        for (int j = 0; j < N; ++j) x[j] = load(from + j * step);
        if constexpr (Z) {
            Vec<T> y = matrix[0] * x[0];
            for (int j = 2; j < N - 1; j += 2) y += matrix[j] * x[j];
            store(to, y);
        }
        for (int p = Z; p < N - 1; p += 2) {
            const T* row = matrix + p * N;
            Vec<T> a{}, b{};
            for (int j = Z ? 2 : 0; j < N - 1; j += 2) a += row[j] * x[j];
            for (int j = 1; j < N - 1; j += 2) b += row[j] * x[j];
            store(to + p * to_step, a + b);
            store(to + (p + 1) * to_step, a - b);
        }
        const T* row = matrix + (N - 1) * N;
        Vec<T> y = row[N - 1] * x[N - 1];
        for (int j = Z; j < N - 1; j += 2) y += row[j] * x[j];
        store(to + (N - 1) * to_step, y);
    }
}

// R -> n: values of a polynomial of R coefficients at the points, scaled.
template <class T, int N, int R>
void spread_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
    constexpr int Z = N % 2 == 0;
    for (int64_t c = 0; c < count; ++c, from += line, to += to_line) {
        Vec<T> x[R];
        for (int j = 0; j < R; ++j) x[j] = load(from + j * step);
        if constexpr (Z) store(to, matrix[0] * x[0]);
        for (int p = Z; p < N - 1; p += 2) {
            const T* row = matrix + p * R;
            Vec<T> a = row[0] * x[0], b{};
            for (int j = 2; j < R; j += 2) a += row[j] * x[j];
            for (int j = 1; j < R; j += 2) b += row[j] * x[j];
            store(to + p * to_step, a + b);
            store(to + (p + 1) * to_step, a - b);
        }
        store(to + (N - 1) * to_step, matrix[(N - 1) * R + R - 1] * x[R - 1]);
    }
}

// n -> R: the transpose of `spread_pass`; the matrix is R x n.
template <class T, int N, int R>
void collect_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
    constexpr int Z = N % 2 == 0, P = (N - 1) / 2;
    for (int64_t c = 0; c < count; ++c, from += line, to += to_line) {
        Vec<T> even[P + 1], odd[P + 1];
        for (int k = 0; k < P; ++k) {
            Vec<T> plus = load(from + (Z + 2 * k) * step), minus = load(from + (Z + 2 * k + 1) * step);
            even[k] = plus + minus;
            odd[k] = plus - minus;
        }
        for (int i = 0; i < R; ++i) {
            const T* row = matrix + i * N;
            Vec<T> y{};
            if (Z && i == 0) y += row[0] * load(from);
            for (int k = 0; k < P; ++k) y += row[Z + 2 * k] * (i % 2 ? odd[k] : even[k]);
            if (i == R - 1) y += row[N - 1] * load(from + (N - 1) * step);
            store(to + i * to_step, y);
        }
    }
}

constexpr int kMostPoints = 8;

template <class T, int N = kMostPoints> Pass<T> data_of(int64_t n) {
    if constexpr (N > 3) {
        if (n < N) return data_of<T, N - 1>(n);
    }
    return data_pass<T, N>;
}

template <class T, bool Spread, int N, int R> Pass<T> ends_of_points(int64_t r) {
    if constexpr (R > 2) {
        if (r < R) return ends_of_points<T, Spread, N, R - 1>(r);
    }
    if constexpr (Spread) return spread_pass<T, N, R>;
    return collect_pass<T, N, R>;
}

template <class T, bool Spread, int N = kMostPoints> Pass<T> ends_of(int64_t n, int64_t r) {
    if constexpr (N > 3) {
        if (n < N) return ends_of<T, Spread, N - 1>(n, r);
    }
    return ends_of_points<T, Spread, N, N - 1>(r);
}

}  // namespace NINEFOLD_NS
