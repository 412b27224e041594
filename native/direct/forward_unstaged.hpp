// Bands of 3x3 and 5x5 kernels of one channel whose rows are read where they lie: a list of rows, zeros for those outside.
#pragma once
#include "direct/forward_plan.hpp"

namespace NINEFOLD_NS {
namespace {

// A band whose rows are read where they lie; `zeros` has room for one of them.
template <int K, class T, class S>
inline void unstaged(Forward<T, S>& f, const Band<T>& band, int64_t g, const float* source, float* to, float* zeros) {
    const Direct& d = f.d;
    Span span;
    span_of(d, span);
    const int64_t dy = d.y.at[1] - d.y.at[0], from_x = span.from - span.before;
    for (int64_t k = 0; k < d.staged[2]; ++k) zeros[k] = 0;
    const bool columns = K == 3 && d.z.taps == 1;
    const float* rows[kRows];
    T* packed = reinterpret_cast<T*>(reinterpret_cast<char*>(zeros) + f.s.staged);
    Unstaged<K> args{rows, d.z.taps, d.x[0].count, packed, f.bias ? wide(f.bias[g]) : 0.0f, float(d.floor), {}};
    f.packed_line(band, d.x[0], g, nullptr, packed, 0, dy, 1);
    args.prepare(span);
    for (int64_t z = band.z0; z < band.z1; ++z)
        for (int64_t r = 0; r < min(dy, band.y1 - band.y0); ++r) {
            int64_t left = ceil_div(band.y1 - band.y0 - r, dy), y = band.y0 + r;
            while (left) {
                const int64_t many = balanced_chunk(left, columns ? kColumn : 4), out_row = dy * d.jump[1] * d.out[1];
                const float** row = rows;
                for (int64_t a = 0; a < d.z.taps; ++a) {
                    const int64_t from_z = d.source[0][z * d.step[0] + d.z.at[a]];
                    for (int64_t u = 0; u < K + many - 1; ++u) {
                        const int64_t from_y = d.source[1][y + d.y.at[0] + u * dy];
                        *row++ = from_z < 0 || from_y < 0 ? zeros : source + from_z * d.in[0] + from_y * d.in[1] + from_x;
                    }
                }
                float* out_rows = f.at(to, z, y, d.x[0], 0);
                y += many * dy;
                left -= many;
                if constexpr (K == 3) {
                    if (columns) {
                        unstaged_columns(args, many, out_rows, out_row);
                        continue;
                    }
                }
                switch (many) {
                    case 1: unstaged_rows<K, 1>(args, out_rows, out_row); break;
                    case 2: unstaged_rows<K, 2>(args, out_rows, out_row); break;
                    case 3: unstaged_rows<K, 3>(args, out_rows, out_row); break;
                    default: unstaged_rows<K, 4>(args, out_rows, out_row);
                }
            }
        }
}

}  // namespace
}  // namespace NINEFOLD_NS
