"""The definitions, as readable NumPy: when in doubt what something must compute, these decide."""

from ninefold.reference.conv import c, g, h, terms
from ninefold.reference.patches import fold, pad, unfold
from ninefold.reference.pool import (
    bins,
    channel_pool,
    fractional_starts,
    pool,
    pool_bins,
    pool_fractions,
    reductions,
    unpool,
    unpool_top_left,
)

__all__ = [
    "bins",
    "c",
    "channel_pool",
    "fold",
    "fractional_starts",
    "g",
    "h",
    "pad",
    "pool",
    "pool_bins",
    "pool_fractions",
    "reductions",
    "terms",
    "unfold",
    "unpool",
    "unpool_top_left",
]
