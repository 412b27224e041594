"""Structured outputs: a label for every pixel, refined, and cut into objects."""

__all__: list[str] = []
