// Runs as Python gives them: (to, from, count, step), checked before this.
#pragma once
#include <vector>

#include "common/types.hpp"

namespace ninefold {

using RunLists = std::vector<std::vector<int64_t>>;

inline std::vector<Run> runs_of(const RunLists& given) {
    std::vector<Run> runs;
    for (const auto& run : given) runs.push_back(Run{run.at(0), run.at(1), run.at(2), run.at(3)});
    return runs;
}

inline Positions positions_of(const std::vector<Run>& runs) {
    Positions positions{runs.data(), int64_t(runs.size())};
    for (const Run& run : runs)
        if (run.from >= 0 && run.count > positions.inside.count) positions.inside = run;
    return positions;
}

}  // namespace ninefold
