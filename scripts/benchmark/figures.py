"""What was measured: medians over runs, as a table for people and as JSON."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one run. `direct` is the same against the provider itself, None where that means nothing."""

    name: str
    unit: str
    cloche: float
    direct: float | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """What we want of a figure: of what Cloche adds to the direct one, or of the figure itself."""

    of: Literal["cloche", "added"]
    is_met_by: Literal["at most", "at least"]
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """The medians of one reading over all runs; `added` is their difference. The single values are kept."""

    name: str
    unit: str
    cloche: float
    direct: float | None
    added: float | None
    aim: Aim | None
    is_met: bool | None
    cloche_runs: list[float]
    direct_runs: list[float]


AIMS = {
    "first token p50, 200 streams": Aim("added", "at most", 10),
    "streamed events, saturated": Aim("cloche", "at least", 10_000),
    "whole answers": Aim("cloche", "at least", 300),
    "memory per idle stream": Aim("cloche", "at most", 60),
    "client's close to provider's close p50": Aim("cloche", "at most", 5),
}


def build_figures(readings: Iterable[Reading]) -> list[Figure]:
    """In the order in which the names came first."""
    by_name: dict[str, list[Reading]] = {}
    for reading in readings:
        by_name.setdefault(reading.name, []).append(reading)
    return [_build_figure(same) for same in by_name.values()]


def _build_figure(same: list[Reading]) -> Figure:
    cloche_runs = [reading.cloche for reading in same]
    direct_runs = [reading.direct for reading in same if reading.direct is not None]
    cloche = statistics.median(cloche_runs)
    direct = statistics.median(direct_runs) if direct_runs else None
    added = None if direct is None else cloche - direct
    aim = AIMS.get(same[0].name)
    is_met = None if aim is None else _is_met(aim, cloche, added)
    return Figure(same[0].name, same[0].unit, cloche, direct, added, aim, is_met, cloche_runs, direct_runs)


def _is_met(aim: Aim, cloche: float, added: float | None) -> bool | None:
    value = cloche if aim.of == "cloche" else added
    if value is None:
        return None
    return value <= aim.value if aim.is_met_by == "at most" else value >= aim.value


def as_json(figures: Iterable[Figure]) -> list[dict[str, object]]:
    return [asdict(figure) for figure in figures]


def as_table(figures: Iterable[Figure]) -> str:
    rows: list[tuple[str, ...]] = [("", "unit", "through Cloche", "direct", "difference", "aim")]
    rows += [_build_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_join_row(row, widths) for row in rows)


def _build_row(figure: Figure) -> tuple[str, ...]:
    aim = figure.aim
    words = "" if aim is None else f"{'added ' if aim.of == 'added' else ''}{aim.is_met_by} {aim.value:,g}"
    verdict = {None: "", True: ", met", False: ", MISSED"}[figure.is_met]
    numbers = (_as_text(figure.cloche), _as_text(figure.direct), _as_text(figure.added))
    return (figure.name, figure.unit, *numbers, words + verdict)


def _as_text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _join_row(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [cell.rjust(width) if column in {2, 3, 4} else cell.ljust(width) for column, (cell, width) in
             enumerate(zip(row, widths, strict=True))]  # fmt: skip
    return "  ".join(cells).rstrip()


def percentile(values: list[float], percent: float) -> float:
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
