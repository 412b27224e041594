import gc

import torch

from ninefold.testing import PeakMemory, Poisoned


def test_every_way_to_fresh_memory_is_poisoned_and_nothing_else():
    x = torch.ones(2, 3)
    with Poisoned():
        fresh = [
            torch.empty(2, 3),
            x.new_empty(4),
            torch.empty_like(x),
            torch.empty_strided((2, 2), (1, 2)),
            x.new_empty_strided((2, 2), (1, 2)),
            torch.empty(2, 3, 4, 5, memory_format=torch.channels_last),
            torch.empty(3, dtype=torch.complex64),
            torch.empty(3, dtype=torch.bfloat16),
        ]
        kept = [torch.zeros(3), x.new_zeros(3), x + 1, torch.full((2,), 5.0), torch.empty(3, dtype=torch.int64)]
    assert all(f.isnan().all() for f in fresh)
    assert not any(k.isnan().any() for k in kept)
    assert not torch.zeros(3).isnan().any()


def test_the_peak_is_of_what_lives_at_once_and_views_count_once():
    x = torch.zeros(1000)
    with PeakMemory([x]) as memory:
        for _ in range(3):
            y = x * 2
            y = y.view(10, 100)[:, 3:]
            del y
            gc.collect()
    assert memory.peak == 4000
    with PeakMemory([x]) as memory:
        kept = [x + 1 for _ in range(3)]
    assert memory.peak == 12000
    assert len(kept) == 3
    with PeakMemory([x]) as memory:
        x.view(10, 100).mul_(2)
    assert memory.peak == 0
