"""Benchmarks: ninefold against PyTorch and others, interleaved in one process, so that only ratios are believed.

``python -m bench`` runs every named shape; ``python -m bench.overhead``, ``bench.compiled`` and ``bench.figures``
answer single questions. Speed is never a test.
"""
