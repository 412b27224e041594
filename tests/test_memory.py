import mmap
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from ninefold import memory
from ninefold.memory import faults, peak_memory, retain_memory

_FAULTS_OF_A_FRESH_TENSOR = """
    import sys
    import torch
    from ninefold.memory import faults, retain_memory

    took = retain_memory() if sys.argv[1] == "kept" else None
    counts = []
    for _ in range(16):
        before = faults()
        torch.zeros(3, 5, 1 << 20).add_(1)
        counts.append(faults() - before)
    print(took, min(counts[4:]))
"""


def _child(script, *arguments):
    code = textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_retained_memory_comes_back_without_page_faults():
    _, cold = _child(_FAULTS_OF_A_FRESH_TENSOR, "cold")
    took, kept = _child(_FAULTS_OF_A_FRESH_TENSOR, "kept")
    if took == "False":
        pytest.skip("the allocator here is not glibc's")
    assert int(cold) > 20  # 60 MB are 15,000 pages, or 30 large ones
    assert int(kept) <= int(cold) // 20


def test_another_allocator_gets_one_sentence_and_false(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert retain_memory() is False
    (warning,) = caught
    assert "no effect" in str(warning.message)
    assert warning.filename == __file__


def test_an_allocator_that_agrees_but_does_nothing_is_found_out(monkeypatch):
    class Agreeable:
        def mallopt(self, *_):
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Agreeable())
    monkeypatch.setattr(memory, "_returns_without_faults", lambda _: False)
    with pytest.warns(RuntimeWarning, match="no effect"):
        assert retain_memory() is False


def test_importing_ninefold_changes_no_allocator():
    script = """
        import ctypes
        calls = []
        real = ctypes.CDLL.__getattr__
        ctypes.CDLL.__getattr__ = lambda self, name: (calls.append(name), real(self, name))[1]
        import ninefold.memory
        print("mallopt" in calls)
    """
    assert _child(script) == ["False"]


def test_faults_grow_with_fresh_memory():
    before = faults()
    with mmap.mmap(-1, 1 << 24) as fresh:  # the heap of a long process may hold free pages, a new mapping never does
        for page in range(0, 1 << 24, 4096):
            fresh[page] = 1
    if before == 0 and faults() == 0:
        pytest.skip("the system does not count page faults")
    assert faults() > before


def test_peak_counts_what_is_freed_within_the_block():
    size = 48 << 20
    with peak_memory() as peak:
        torch.ones(size // 4)
        torch.ones(1000)
    if peak.bytes is None:
        pytest.skip("the system keeps no high-water mark")
    assert 0.9 * size < peak.bytes < 1.5 * size
    with peak_memory() as second:
        torch.ones(1000)
    assert second.bytes < size // 4
    assert "MB" in repr(peak)


def test_memory_freed_before_counts_again():
    _, first, second = _child("""
        import torch
        from ninefold.memory import peak_memory, retain_memory
        print(retain_memory())
        for _ in range(2):
            with peak_memory() as peak:
                torch.ones(12 << 20)
            print(peak.bytes)
    """)
    if first == "None":
        pytest.skip("the system keeps no high-water mark")
    assert int(second) > 0.9 * (48 << 20)


def test_peak_is_unknown_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(memory, "_reset_mark", lambda: False)
    with peak_memory() as peak:
        pass
    assert peak.bytes is None
    assert repr(peak) == "Peak(unknown)"


def test_peak_is_set_when_the_block_raises():
    with pytest.raises(KeyError), peak_memory() as peak:
        raise KeyError
    assert peak.bytes is None or peak.bytes >= 0
