"""Threads that work ahead of whoever takes their results, in order.

OpenCV leaves Python's lock while it decodes, so threads are enough, and pictures need not be sent between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_AHEAD = 1 << 27
"""Largest sum of weights in the making: pixels, where large pictures are decoded; 400 megabytes of them."""


class Threads:
    """Threads that work ahead of whoever takes their results. Use as a context manager.

    Args:
        count: number of threads; with 0 the work is done where the results are taken.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor = ThreadPoolExecutor(count, "pictures") if count else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        ahead: int = 0,
        weigh: Callable[[Item], int] | None = None,
    ) -> Iterator[Result]:
        """Yield `function(item)` in the order of the items; `ahead` of them and one per thread are in the making.

        Where items have weights, those in the making together weigh no more than `MOST_AHEAD`; a heavier one is made
        when no other is.
        """
        if self._executor is None:
            yield from map(function, items)
            return
        making: deque[tuple[Future[Result], int]] = deque()
        held = 0
        for item in items:
            weight = weigh(item) if weigh is not None else 0
            while making and (held + weight > MOST_AHEAD or len(making) > ahead + self._count):
                held -= making[0][1]
                yield making.popleft()[0].result()
            making.append((self._executor.submit(function, item), weight))
            held += weight
        while making:
            yield making.popleft()[0].result()
