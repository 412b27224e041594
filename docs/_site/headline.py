"""Draw ``measurements/headline.png`` from ``measurements/headline.csv``: ``python docs/_site/headline.py``."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parents[1] / "measurements"


def rows() -> list[dict[str, str]]:
    """Return the rows of the table."""
    with (HERE / "headline.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def markdown() -> str:
    """Return the table as it stands in the README and on the start page."""
    lines = ["| problem | case | PyTorch, ms | ninefold, ms | ratio |", "|---|---|---|---|---|"]
    cells = ("problem", "case", "PyTorch ms", "ninefold ms", "ratio")
    return "\n".join([*lines, *(f"| {' | '.join(row[cell] for cell in cells)} |" for row in rows())])


def picture() -> Figure:
    """Return two bars for every row, on a logarithmic axis of milliseconds."""
    shown = rows()[::-1]
    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    ax = figure.subplots()
    for k, (cell, colour) in enumerate((("ninefold ms", "#2456a6"), ("PyTorch ms", "#b8c0cc"))):
        values = [float(row[cell]) for row in shown]
        bars = ax.barh([i + 0.38 * k for i in range(len(shown))], values, 0.36, color=colour, label=cell.removesuffix(" ms"))
        ax.bar_label(bars, [row[cell] for row in shown], padding=3, fontsize=8, color="#333")
    ax.set_yticks([i + 0.19 for i in range(len(shown))], [f"{row['problem']}\n{row['case']}" for row in shown], fontsize=8)
    ax.set_xscale("log")
    ax.set_xlim(2, 2500)
    ax.set_xlabel("milliseconds, less is better (logarithmic)", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9, loc="lower right", reverse=True)
    return figure


if __name__ == "__main__":
    picture().savefig(HERE / "headline.png", dpi=110)
    print(markdown())
