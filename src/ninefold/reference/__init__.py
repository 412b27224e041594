"""The definitions, as readable NumPy: when in doubt what something must compute, these decide."""

from ninefold.reference.conv import c, g, h, terms
from ninefold.reference.pool import bins, channel_pool, pool, pool_bins, reductions, unpool, unpool_top_left

__all__ = [
    "bins",
    "c",
    "channel_pool",
    "g",
    "h",
    "pool",
    "pool_bins",
    "reductions",
    "terms",
    "unpool",
    "unpool_top_left",
]
