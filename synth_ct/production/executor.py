"""Who works: processes of this machine, or (in ray_jobs) actors of a cluster. Same words for both.

An executor decides nothing about items. It says when a worker died, and of whom it was certain that
it worked on nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from synth_ct.production.order import Item
from synth_ct.production.work import Job, Told

BATCH = 16
"""Items a worker is given at once."""


class Death(NamedTuple):
    """A worker died while it had this item, and nothing else, in its hands."""

    id: str
    guilty: bool
    """False where its machine died too, or somebody asked it to end."""


@runtime_checkable
class Executor(Protocol):
    """Runs workers of a job."""

    def together(self, job: Job, items: Sequence[Item]) -> Iterator[Told]:
        """Work off all items, in any order; replace workers that die."""

    def alone(self, job: Job, items: Sequence[Item]) -> Iterator[Told | Death]:
        """Each item by itself, in a worker that has nothing else to do."""


def batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Pieces of at most `BATCH`."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
