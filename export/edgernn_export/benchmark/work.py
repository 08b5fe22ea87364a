"""Methods asked about series by several processes, answers in the order of the questions."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from edgernn.benchmark.method import Method, Said, ask
from edgernn.benchmark.series import Series
from edgernn.errors import EdgernnError

Question = tuple[Method, Series]


def answers(
    questions: Sequence[Question], *, workers: int, on_answer: Callable[[], object]
) -> list[Said]:
    """What each method says of each series. With one worker in this process, else in fresh ones:
    torch and ONNX Runtime do not outlive a fork. The first error ends it all."""
    found = _one_by_one(questions) if workers == 1 else _side_by_side(questions, workers)
    said: dict[int, Said] = {}
    for place, one in found:
        said[place] = one
        on_answer()
    return [said[place] for place in range(len(questions))]


def _one_by_one(questions: Sequence[Question]) -> Iterator[tuple[int, Said]]:
    for place, question in enumerate(questions):
        yield place, ask(*question)


def _side_by_side(questions: Sequence[Question], workers: int) -> Iterator[tuple[int, Said]]:
    """Never more at hand than are worked on, so that an error is not waited for long."""
    running: dict[Future[Said], int] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for place, question in enumerate(questions):
                if len(running) == workers:
                    yield from _finished(running)
                running[pool.submit(ask, *question)] = place
            while running:
                yield from _finished(running)
        except BrokenProcessPool as exc:
            raise EdgernnError(
                "a process was killed, perhaps for want of memory; try --workers 1"
            ) from exc


def _finished(running: dict[Future[Said], int]) -> Iterator[tuple[int, Said]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for one in done:
        yield running.pop(one), one.result()
