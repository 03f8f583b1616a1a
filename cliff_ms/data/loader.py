"""Batches ahead of their use, in threads.

Threads, not processes: decoding and warping leave Python's lock, a batch need not be copied from one process to
another, and there is no worker to be killed, orphaned or confused by Ctrl-C; what goes wrong in one is raised where the
batch is used, as it is. Of MindSpore's own loaders, DataLoader's processes loaded two thirds as many images a second,
and GeneratorDataset's threads as many, but those run some 40 batches ahead (6 GB at 256 samples) whatever its settings
say, and take seconds to stop.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

import cv2

if TYPE_CHECKING:  # it loads MindSpore
    from cliff_ms.data.batching import Batch

Result = TypeVar("Result")


def in_order(pool: Executor, work: Callable[..., Result], items: Iterable[tuple], ahead: int) -> Iterator[Result]:
    """Work on items in other threads or processes, a few ahead of their use.

    Args:
        pool: The threads or processes.
        work: What to do with an item.
        items: Arguments of `work`; taken from in this thread.
        ahead: How many items at once are in work, or done and not used yet.

    Yields:
        The results in the order of the items.

    Raises:
        Exception: What `work` raised, in its turn.
    """
    items = iter(items)
    waiting = deque(pool.submit(work, *item) for item in islice(items, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, *item) for item in islice(items, 1))
        yield result


def load_batches(
    load: Callable[[int], "Batch"], workers: int, start: int = 0, stop: int | None = None
) -> Iterator["Batch"]:
    """Load batches in order.

    Workers switch off OpenCV's own threads, for the whole process: they keep the cores busy themselves.

    Args:
        load: Number of a batch to the batch, such as `TrainDataset.batch`; what it gives depends on the number only.
        workers: Threads, each at most two batches ahead; 0 loads when the next batch is asked for.
        start: The first batch; a resumed run starts where it was.
        stop: The batch to stop before; None for never.

    Yields:
        The batches.

    Raises:
        Exception: What `load` raised, in its turn.
    """
    numbers = iter(count(start) if stop is None else range(start, stop))
    if workers == 0:
        yield from map(load, numbers)
        return
    cv2.setNumThreads(0)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    try:
        yield from in_order(pool, load, zip(numbers), 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)
