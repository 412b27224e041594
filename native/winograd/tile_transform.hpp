// A tile's way through its transforms, axis by axis, and how many of everything a plan has.
#pragma once
#include "winograd/toom_cook.hpp"
#include "winograd/winograd.hpp"

namespace NINEFOLD_NS {
namespace {

// The matrices of a call, as vectors of T beside one another.
template <class T> struct Matrices {
    const T* at[3][3];  // axis; data, first, second
    Pass<T> pass[3][3];
};

struct Shape {
    int64_t n[3];
    int64_t count() const { return n[0] * n[1] * n[2]; }
};

Shape points(const Winograd& p) { return {{p.axis[0].n, p.axis[1].n, p.axis[2].n}}; }
Shape tile(const Winograd& p) { return {{p.axis[0].m, p.axis[1].m, p.axis[2].m}}; }
Shape piece(const Winograd& p) { return {{p.axis[0].r, p.axis[1].r, p.axis[2].r}}; }
Shape taps(const Winograd& p) { return {{p.axis[0].taps, p.axis[1].taps, p.axis[2].taps}}; }
Shape pieces(const Winograd& p) { return {{p.axis[0].pieces, p.axis[1].pieces, p.axis[2].pieces}}; }

// Applies a transform along every axis that has one. `from` has extents `in` and strides; so has `to` with `out`.
template <class T>
NINEFOLD_INLINE void transform(const Pass<T>* pass, const T* const* matrix, Shape in, Shape out, bool x_first, const T* from,
                               const int64_t* from_stride, T* to, const int64_t* to_stride, T* room) {
    constexpr int L = kLanes<T>;
    int active = 0, done = 0;
    for (int d = 0; d < 3; ++d) active += pass[d] != nullptr;
    Shape now = in;
    int64_t stride[3] = {from_stride[0], from_stride[1], from_stride[2]};
    T* rooms[2] = {room, room + L * kMostPoints * kMostPoints * kMostPoints};
    for (int k = 0; k < 3; ++k) {
        const int d = x_first ? 2 - k : k;
        if (pass[d] == nullptr) continue;
        Shape next = now;
        next.n[d] = out.n[d];
        const bool last = ++done == active;
        int64_t packed[3] = {next.n[1] * next.n[2] * L, next.n[2] * L, L};
        const int64_t* target = last ? to_stride : packed;
        T* into = last ? to : rooms[done & 1];
        const int a = d == 0 ? 1 : 0, b = d == 2 ? 1 : 2;  // the other axes
        for (int64_t i = 0; i < now.n[a]; ++i)
            pass[d](matrix[d], from + i * stride[a], stride[d], stride[b], into + i * target[a], target[d], target[b], now.n[b]);
        now = next;
        from = into;
        for (int j = 0; j < 3; ++j) stride[j] = target[j];
    }
}

}  // namespace
}  // namespace NINEFOLD_NS
