"""The *Convolutional Networks* chapter, alive: every claim, formula and figure as an entry that runs."""

from difflib import get_close_matches

from ninefold.chapter import (
    borders,
    checkerboard,
    convolution,
    data_types,
    efficient,
    fields,
    groups,
    label_maps,
    learned_layers,
    motivation,
    networks,
    objects,
    pooled_learning,
    pooling,
    pooling_position,
    pretraining,
    prior,
    priors,
    recurrent,
    rotation,
    screening,
    separable,
    supplements,
    tiling,
    unsupervised,
    variants,
)
from ninefold.chapter.entry import VERDICTS, Entry, Finding, entry
from ninefold.errors import ArgumentError

__all__ = ["ENTRIES", "SECTIONS", "VERDICTS", "Entry", "Finding", "entry", "find"]


def _with(entries: tuple[Entry, ...], **after: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Put entries of other files after those whose function has that name: files are by subject, the order is the notes'."""
    return tuple(one for entry in entries for one in (entry, *after.get(entry.run.__name__, ())))


def _by_supplement(*entries: Entry) -> tuple[Entry, ...]:
    """Sort entries by the number of the supplement they belong to."""
    return tuple(sorted(entries, key=lambda entry: entry.key[:3]))


SECTIONS: dict[str, tuple[Entry, ...]] = {
    "1. What a convolution is": convolution.ENTRIES,
    "2. Motivation": motivation.ENTRIES,
    "3. Pooling": _with(
        pooling.ENTRIES,
        invariance_forgets=(pooling_position.what_or_where,),
        pooled_over_channels=rotation.ENTRIES,
        clustered=(pooled_learning.clusters,),
        rectangles=(pooled_learning.regions, pooled_learning.probabilistic),
        unpooling=(pooled_learning.switches,),
    ),
    "4. Convolution and pooling as strong priors": (
        *prior.ENTRIES,
        *priors.ENTRIES,
        pooling_position.exact_distance,
        borders.place_from_borders,
    ),
    "5. Variants of the convolution": (
        *_with(variants.ENTRIES, what_same_means=(borders.best_padding,)),
        *groups.ENTRIES,
        *networks.GROUPS,
        *_with(tiling.ENTRIES, pooled_tiles=learned_layers.TILED),
    ),
    "6. Structured outputs and data types": (
        *label_maps.ENTRIES,
        *recurrent.ENTRIES,
        *objects.ENTRIES,
        *fields.ENTRIES,
        *data_types.ENTRIES,
    ),
    "7. Efficient convolution": (*efficient.ENTRIES, *networks.SEPARABLE, *separable.ENTRIES),
    "7. Random or unsupervised features": (
        *pretraining.FIRST,
        *unsupervised.ENTRIES,
        *screening.ENTRIES,
        *learned_layers.ENTRIES,
        *pretraining.ENTRIES,
    ),
    "Supplements: 3-D, 1x1, transposed, dilated": _by_supplement(
        *supplements.ENTRIES, *networks.SUPPLEMENTS, *checkerboard.ENTRIES
    ),
}
"""Entries by the sections of the notes, in their order."""

ENTRIES: tuple[Entry, ...] = tuple(entry for entries in SECTIONS.values() for entry in entries)


def find(key: str) -> Entry:
    """Return the entry of a key.

    Raises
    ------
    ArgumentError
        If there is none, with the nearest keys.

    Examples
    --------
    >>> find("9.16").title
    'Local, tiled and standard convolution'
    """
    found = [entry for entry in ENTRIES if entry.key == key]
    if not found:
        keys = [entry.key for entry in ENTRIES]
        near = [k for k in keys if k.startswith(key)] or get_close_matches(key, keys, 4, 0.3) or keys[:4]
        raise ArgumentError(
            f"the chapter has no entry {key!r}; near are {', '.join(map(repr, near))}; all are in the table of `ninefold chapter`"
        )
    return found[0]
