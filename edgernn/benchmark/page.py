"""What a benchmark found as one HTML page that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgernn import __version__
from edgernn.benchmark.columns import COLUMNS, cell
from edgernn.benchmark.figures import Judged, Row
from edgernn.benchmark.pictures import draw_file
from edgernn.benchmark.series import Bools, Corpus
from edgernn.report import make_environment
from edgernn.settings import make_folder, write_atomically
from edgernn.times import format_time

TITLES = {
    "nab": "Numenta Anomaly Benchmark",
    "skab": "Skoltech Anomaly Benchmark",
    "smd": "Server Machine Dataset",
    "gecco": "GECCO 2018 water quality",
}
TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page tells."""

    corpus: Corpus
    folder: str
    rows: Sequence[Row]
    drawn: Sequence[Judged]
    """Of the first method, whose scores are drawn."""
    alarms: Mapping[str, Sequence[Bools]]
    """Of all methods, by name: (T,) of each series."""
    quiet: int
    """Rows in which a score had to be beaten to count again; 0 = every score counts."""
    budget: str
    """Of false alarms, of all methods; "" = each method's own."""


def write_page(path: Path, page: Page) -> None:
    """Every figure of the CSV, and a picture of each file."""
    environment = make_environment(TEMPLATE.parent)
    first = next(iter(page.alarms))
    files = [
        {
            "name": one.series.name,
            "rows": len(one.score),
            "learnt": len(one.series.learnable),
            "silent": one.said.silent_rows,
            "span": _span(one),
            "note": one.said.note,
            "windows": len(one.truth.windows),
            "lines": [row for row in page.rows if row.file == one.series.name],
            "picture": draw_file(one, {name: on[place] for name, on in page.alarms.items()}),
        }
        for place, one in enumerate(page.drawn)
    ]
    text = environment.get_template(TEMPLATE.name).render(
        page=page,
        title=TITLES[page.corpus.benchmark],
        columns=COLUMNS[page.corpus.benchmark],
        cell=cell,
        together=[row for row in page.rows if not row.file],
        files=files,
        healthy=[
            (series.name, [row for row in page.rows if row.file == series.name])
            for series in page.corpus.healthy
        ],
        first=first,
        version=__version__,
    )
    make_folder(path.parent)
    write_atomically(path, text.encode())


def _span(one: Judged) -> str:
    time_s = one.series.time_s
    if time_s is None:
        return "no times"
    ends = (format_time(float(t))[:16].replace("T", " ") for t in (time_s[0], time_s[-1]))
    return " to ".join(ends)
