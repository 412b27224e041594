"""Pictures of what was recorded."""

from typing import Any

from ninefold.chapter.record import load
from ninefold.errors import ArgumentError

__all__ = ["curves", "numbers"]


def numbers(key: str) -> dict[str, Any]:
    """Return the recorded numbers of an entry.

    Raises
    ------
    ArgumentError
        If it has not been recorded.

    Examples
    --------
    >>> numbers("0.0")
    Traceback (most recent call last):
        ...
    ninefold.errors.ArgumentError: nothing is recorded for '0.0'; run the long entries first
    """
    records = load()
    if key not in records:
        raise ArgumentError(f"nothing is recorded for {key!r}; run the long entries first")
    return records[key].numbers


def curves(key: str, across: str, up: str, which: str = "test", told: dict[str, Any] | None = None) -> Any:
    """Draw a curve with its 95% intervals for each name of an entry's numbers ``{name: {at: {which: [mean, low, high]}}}``.

    Parameters
    ----------
    key : str
        Of the entry.
    across, up : str
        What the axes show.
    which : str
        ``"train"`` or ``"test"``.
    told : dict, optional
        Instead of what was recorded.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> told = {"a line": {"1": {"test": [0.5, 0.4, 0.6]}, "2": {"test": [0.2, 0.1, 0.3]}}}
    >>> len(curves("0.0", "labels", "error", told=told).axes[0].lines)
    1
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded by those who look

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, runs in (numbers(key) if told is None else told).items():
        if not isinstance(runs, dict) or not all(isinstance(run, dict) and which in run for run in runs.values()):
            continue
        means, lows, highs = zip(*(run[which] for run in runs.values()), strict=True)
        places = range(len(runs))
        axes.plot(places, means, marker="o", label=name)
        axes.fill_between(places, lows, highs, alpha=0.15)
        axes.set_xticks(places, list(runs))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(key)
    axes.legend(fontsize="small")
    return figure
