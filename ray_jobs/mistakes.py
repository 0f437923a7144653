"""For Ray Train's controller: which errors are worth another try."""

from typing import Any

from ray.train import UserCallback


class MistakesEndIt(UserCallback):
    """A worker that died may do better next time; a ValueError would only come again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """End the training with the first ValueError, whatever failures are allowed."""
        for error in worker_exceptions.values():
            if isinstance(error, ValueError):
                raise ValueError(str(error))
