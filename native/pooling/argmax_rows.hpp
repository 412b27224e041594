// Rows of a maximum: where it lies, and the sum of what is passed back to where it was found.
#pragma once
#include "pooling/rows.hpp"

namespace NINEFOLD_NS {
namespace {

// The number of a tap, as wide as an element.
template <class T> using Word = typename VecOf<T>::word;

// to[v] = the largest of rows[m][v], at[v] = its tap; where none is larger than nothing, start[v], or the first tap without
// start. `Few` is the number of rows if it is small and known, so that they stay in registers.
template <bool Nan, int Few, class T>
void find_rows(const T* const* rows, const Word<T>* taps, int64_t many, int64_t n, const Word<T>* start, T* to, Word<T>* at) {
    constexpr int L = kLanes<T>;
    constexpr int kept = Few ? Few : 1;
    const int64_t count = Few ? Few : many;
    const T* row[kept];
    Mask<T> tap[kept];
    for (int m = 0; m < kept; ++m) row[m] = rows[m], tap[m] = Mask<T>{} + taps[m];
    for (int64_t v = 0; v < n; v += L) {  // there is room behind all of them
        Vec<T> top = load(row[0] + v);
        Mask<T> where = tap[0];
        if (start) __builtin_memcpy(&where, start + v, kBytes);
        for (int64_t m = 1; m < count; ++m) {
            const Vec<T> x = load((Few ? row[m] : rows[m]) + v);
            Mask<T> more = x > top;
            if constexpr (Nan) more |= x != x;
            where = more ? (Few ? tap[m] : Mask<T>{} + taps[m]) : where;
            top = Nan ? (more ? x : top) : larger(top, x);
        }
        store(to + v, top);
        __builtin_memcpy(at + v, &where, kBytes);
    }
}

template <bool Nan, class T>
void find(const T* const* rows, const Word<T>* taps, int64_t count, int64_t n, const Word<T>* start, T* to, Word<T>* at) {
    switch (count) {
        case 1: return find_rows<Nan, 1, T>(rows, taps, count, n, start, to, at);
        case 2: return find_rows<Nan, 2, T>(rows, taps, count, n, start, to, at);
        case 3: return find_rows<Nan, 3, T>(rows, taps, count, n, start, to, at);
        case 4: return find_rows<Nan, 4, T>(rows, taps, count, n, start, to, at);
        default: return find_rows<Nan, 0, T>(rows, taps, count, n, start, to, at);
    }
}

// to[v] = the sum of rows[m][v], for a maximum of those where found[m][v] is taps[m].
template <bool Max, int Few, class T>
void gather_rows(const T* const* rows, const Word<T>* const* found, const Word<T>* taps, int64_t many, int64_t n, T* to) {
    constexpr int L = kLanes<T>;
    constexpr int kept = Few ? Few : 1;
    const int64_t count = Few ? Few : many;
    const T* row[kept];
    const Word<T>* where[kept];
    Mask<T> tap[kept];
    for (int m = 0; m < kept && m < count; ++m) {
        row[m] = rows[m];
        if constexpr (Max) where[m] = found[m], tap[m] = Mask<T>{} + taps[m];
    }
    auto one = [&](int64_t v) {
        Vec<T> sum = {};
        for (int64_t m = 0; m < count; ++m) {
            Vec<T> g = load((Few ? row[m] : rows[m]) + v);
            if constexpr (Max) {
                Mask<T> at;
                __builtin_memcpy(&at, (Few ? where[m] : found[m]) + v, kBytes);
                g = masked<T>(g, at == (Few ? tap[m] : Mask<T>{} + taps[m]));
            }
            sum += g;
        }
        return sum;
    };
    int64_t v = 0;
    for (; v + L <= n; v += L) store(to + v, one(v));
    if (v < n) write_first(to + v, one(v), n - v);  // rows are scratch with room behind them
}

template <bool Max, class T>
void gather(const T* const* rows, const Word<T>* const* found, const Word<T>* taps, int64_t count, int64_t n, T* to) {
    switch (count) {
        case 1: return gather_rows<Max, 1, T>(rows, found, taps, count, n, to);
        case 2: return gather_rows<Max, 2, T>(rows, found, taps, count, n, to);
        case 3: return gather_rows<Max, 3, T>(rows, found, taps, count, n, to);
        case 4: return gather_rows<Max, 4, T>(rows, found, taps, count, n, to);
        default: return gather_rows<Max, 0, T>(rows, found, taps, count, n, to);
    }
}

}  // namespace
}  // namespace NINEFOLD_NS
