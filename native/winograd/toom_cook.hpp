// The three transforms of Winograd's convolution F(m, r) along one axis, for vectors of channels: y = A^T [(G g) * (B^T d)].
//
// The matrices are Toom and Cook's. There are n = m + r - 1 points. The first is 0 if n is even. Pairs +a, -a follow. The last is
// infinity. The row of -a is the row of +a with its odd columns negated: both rows of a pair share all products.
//
//   BT_pass   n -> n   data d
//   G_pass    r -> n   kernel g, or in backward_weights the gradient of the output
//   AT_pass   n -> m   output y, or in backward_weights the gradient of the kernel
#pragma once
#include "common/simd.hpp"

namespace NINEFOLD_NS {

// Applies one transform to `count` lines of vectors, which are `step` elements apart along a line and `line` from line to line.
template <class T> using Pass = void (*)(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step,
                                         int64_t to_line, int64_t count);

// B^T: row p of the matrix holds the coefficients of M(x) / (x - p), the last row those of M(x); M is the product of all (x - p).
template <class T, int N>
void BT_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
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

// G: the values of a polynomial of R coefficients at the points, scaled.
template <class T, int N, int R>
void G_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
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

// A^T: the transpose of `G_pass`. The matrix is R x n.
template <class T, int N, int R>
void AT_pass(const T* matrix, const T* from, int64_t step, int64_t line, T* to, int64_t to_step, int64_t to_line, int64_t count) {
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

template <class T, int N = kMostPoints> Pass<T> BT_pass_of(int64_t n) {
    if constexpr (N > 3) {
        if (n < N) return BT_pass_of<T, N - 1>(n);
    }
    return BT_pass<T, N>;
}

template <class T, bool IsG, int N, int R> Pass<T> G_or_AT_pass_of_points(int64_t r) {
    if constexpr (R > 2) {
        if (r < R) return G_or_AT_pass_of_points<T, IsG, N, R - 1>(r);
    }
    if constexpr (IsG) return G_pass<T, N, R>;
    return AT_pass<T, N, R>;
}

template <class T, bool IsG, int N = kMostPoints> Pass<T> G_or_AT_pass_of(int64_t n, int64_t r) {
    if constexpr (N > 3) {
        if (n < N) return G_or_AT_pass_of<T, IsG, N - 1>(n, r);
    }
    return G_or_AT_pass_of_points<T, IsG, N, N - 1>(r);
}

}  // namespace NINEFOLD_NS
