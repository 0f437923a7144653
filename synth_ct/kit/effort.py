"""Where and how fast a stage works. Nothing here changes what it makes."""

from collections.abc import Callable
from dataclasses import dataclass

from synth_ct.kit.progress import Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The hands a stage is given."""

    workers: int = 0
    """Worker processes; 0 works in this one."""
    device: str = "cpu"
    """Where networks train, in torch's words."""
    begin: Callable[[int], Tick] = lambda total: lambda done=1, note="", /: None
    """Called with how much there is to do; gives the function that is told of each step."""
