"""Methods asked about series by several processes, answers in the order of the questions."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from edgernn.benchmark.method import Method, Said, ask
from edgernn.benchmark.series import Series

Question = tuple[Method, Series]


def answers(
    questions: Sequence[Question], *, workers: int, on_answer: Callable[[], object]
) -> list[Said]:
    """What each method says of each series. With one worker in this process, else in fresh ones:
    torch and ONNX Runtime do not outlive a fork. The first error ends it all."""
    if workers == 1:
        said = []
        for method, series in questions:
            said.append(ask(method, series))
            on_answer()
        return said
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: list[Future[Said]] = [pool.submit(ask, *question) for question in questions]
        try:
            for one in as_completed(waiting):
                one.result()
                on_answer()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [one.result() for one in waiting]
