"""Scores as files that an official scorer can be pointed at."""

from datetime import UTC, datetime
from pathlib import Path

from edgernn.benchmark.method import Said
from edgernn.benchmark.published import anomaly_score
from edgernn.benchmark.series import Series
from edgernn.settings import make_folder, write_atomically


def write_scores(folder: Path, series: Series, said: Said, *, quiet: int) -> Path:
    """A CSV named as the series, a line for each of its rows in their order: timestamp where the
    file has times, anomaly_score in 0 … 1, alert 0 or 1."""
    score = anomaly_score(said, quiet=quiet)
    columns = [[repr(value) for value in score.tolist()], _flags(said)]
    titles = ["anomaly_score", "alert"]
    if series.time_s is not None:
        columns.insert(0, [_written(time_s) for time_s in series.time_s.tolist()])
        titles.insert(0, "timestamp")
    lines = [",".join(titles), *(",".join(cells) for cells in zip(*columns, strict=True))]
    path = folder / series.name
    make_folder(path.parent)
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def _flags(said: Said) -> list[str]:
    return ["1" if is_on else "0" for is_on in said.is_on.tolist()]


def _written(time_s: float) -> str:
    """As NAB and SKAB write times."""
    return datetime.fromtimestamp(time_s, UTC).replace(tzinfo=None).isoformat(" ")
