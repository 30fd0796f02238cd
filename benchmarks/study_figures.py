"""Figures and tables of `benchmarks.study`, one for each question."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, str]

COLORS = {"rnn": "C0", "lstm": "C1", "gru": "C2", "mingru": "C3"}
LINES = {"torch": ":", "chrono": "-"}
STARTS = {"torch": "torch's starting weights", "chrono": "ours"}
CHANCE = {"temporal_order": 0.25}  # 0.5 for all other tasks
# sequences to the criterion: Hochreiter and Schmidhuber 1997, tables 7 and 9
SEQUENCES_1997 = {"temporal_order": 31_390, "temporal_order_6b": 571_100, "adding": 74_000}


def select(rows: Sequence[Row], **values: object) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[n] == str(value) for n, value in values.items())]


def values_of(rows: Sequence[Row], column: str) -> list[str]:
    """Return the different values of a column in the order of the file."""
    return list(dict.fromkeys(row[column] for row in rows))


def median(rows: Sequence[Row], column: str) -> float:
    return statistics.median(float(row[column]) for row in rows)


def median_sequences(rows: Sequence[Row]) -> float:
    """Return the median number of sequences; infinite if most seeds have not learned the task."""
    sequences = []
    for row in rows:
        sequences.append(float(row["sequences"]) if row["learned"] == "True" else math.inf)
    return statistics.median(sequences)


def count(sequences: float) -> str:
    return "-" if math.isinf(sequences) else f"{sequences:,.0f}"


def panels(number: int, titles: Sequence[str], **shared: Any) -> tuple[Any, Any]:
    """Return a figure with plots beside each other, and the plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * number, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(1, number, squeeze=False, **shared)[0]
    for axes, title in zip(plots, titles, strict=True):
        axes.set_title(title, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure, plots


def save_figure(figure: Any, path: Path) -> None:
    figure.savefig(path)
    print(f"{path.name} drawn", flush=True)


def add_legend(figure: Any, rows: Sequence[Row]) -> None:
    """Explain colours and lines below the plots."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLORS[cell], label=cell) for cell in values_of(rows, "cell")]
    for start in values_of(rows, "initialization"):
        handles.append(Line2D([], [], color="0.3", linestyle=LINES[start], label=STARTS[start]))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def print_defaults(rows: Sequence[Row], folder: Path) -> None:
    """Print a table of accuracies; this question has no figure."""
    print("| steps | cell | median | seeds |\n| --- | --- | --- | --- |")
    for length in values_of(rows, "length"):
        for cell in values_of(rows, "cell"):
            own = select(rows, length=length, cell=cell)
            seeds = " ".join(f"{float(row['accuracy']):.3f}" for row in own)
            print(f"| {length} | {cell} | {median(own, 'accuracy'):.3f} | {seeds} |")


def draw_lengths(rows: Sequence[Row], folder: Path) -> None:
    """Draw the median number of sequences until a task is learned over the length."""
    tasks = values_of(rows, "task")
    lengths = values_of(rows, "length")
    never = 1.5 * max(float(row["max_sequences"]) for row in rows)
    figure, plots = panels(len(tasks), tasks, sharey=True)
    print("| task | cell | weights | " + " | ".join(lengths) + " |")
    for axes, task in zip(plots, tasks, strict=True):
        for cell in values_of(rows, "cell"):
            for start in values_of(rows, "initialization"):
                own = select(rows, task=task, cell=cell, initialization=start)
                medians = [median_sequences(select(own, length=length)) for length in lengths]
                print(f"| {task} | {cell} | {start} | {' | '.join(map(count, medians))} |")
                heights = [min(value, never) for value in medians]
                shift = 0.04 * len(axes.lines)  # lines at the same height stay visible
                places = [place + shift for place in range(len(lengths))]
                style = {"color": COLORS[cell], "linestyle": LINES[start], "marker": "o"}
                axes.plot(places, heights, markersize=4, **style)
        axes.axhline(never, color="0.6", linewidth=1)
        axes.text(0, never * 1.08, "not learned", fontsize="small", color="0.4")
        axes.set_yscale("log")
        axes.set_ylim(500, 1.5 * never)
        axes.set_xticks(range(len(lengths)), lengths)
        axes.set_xlabel("steps")
    plots[0].set_ylabel("training sequences until learned")
    add_legend(figure, rows)
    save_figure(figure, folder / "study_lengths.png")


def draw_longer(rows: Sequence[Row], folder: Path) -> None:
    """Draw the median accuracy over the length of the test sequences."""
    rows = [row for row in rows if row["test_lengths"].isdigit()]
    tasks = values_of(rows, "task")
    lengths = values_of(rows, "test_lengths")
    figure, plots = panels(len(tasks), tasks, sharey=True)
    print("| task | cell | weights | " + " | ".join(lengths) + " |")
    for axes, task in zip(plots, tasks, strict=True):
        for cell in values_of(rows, "cell"):
            for start in values_of(rows, "initialization"):
                own = select(rows, task=task, cell=cell, initialization=start)
                medians = [median(select(own, test_lengths=n), "accuracy") for n in lengths]
                texts = [f"{value:.3f}" for value in medians]
                print(f"| {task} | {cell} | {start} | {' | '.join(texts)} |")
                style = {"color": COLORS[cell], "linestyle": LINES[start], "marker": "o"}
                axes.plot([int(n) for n in lengths], medians, markersize=4, **style)
        axes.axhline(CHANCE.get(task, 0.5), color="0.6", linewidth=1)
        axes.set_xlabel("steps of the test sequences")
    plots[0].set_ylabel("test accuracy")
    add_legend(figure, rows)
    save_figure(figure, folder / "study_longer.png")


def draw_published(rows: Sequence[Row], folder: Path) -> None:
    """Draw the number of sequences of each seed beside that of 1997, and the median CPU time."""
    tasks = values_of(rows, "task")
    figure, plots = panels(len(tasks), tasks, sharey=True)
    print("| task | cell | weights | learned | sequences | CPU time | 1997 |")
    for axes, task in zip(plots, tasks, strict=True):
        names = []
        for cell in values_of(rows, "cell"):
            for start in values_of(rows, "initialization"):
                own = select(rows, task=task, cell=cell, initialization=start)
                learned = select(own, learned=True)
                place = len(names)
                names.append(f"{cell}, {STARTS[start].partition(' ')[0]}")
                numbers = [float(row["sequences"]) for row in learned]
                axes.plot(numbers, [place] * len(numbers), "o", color=COLORS[cell], alpha=0.6)
                middle = median_sequences(own)
                text = "not learned"
                if math.isfinite(middle):
                    text = f"{median(learned, 'cpu_seconds'):.0f} s"
                axes.text(70, place, text, fontsize="small", va="center")
                columns = [task, cell, start, f"{len(learned)} of {len(own)}", count(middle), text]
                print(f"| {' | '.join(columns)} | {SEQUENCES_1997[task]:,} |")
        axes.axvline(SEQUENCES_1997[task], color="black", linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(60, 1e6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("training sequences (dashed: 1997)")
    plots[0].set_ylim(len(plots[0].get_yticks()) - 0.5, -0.5)
    save_figure(figure, folder / "study_published.png")


FIGURES: dict[str, Callable[[Sequence[Row], Path], None]] = {
    "defaults": print_defaults,
    "lengths": draw_lengths,
    "longer": draw_longer,
    "published": draw_published,
}
