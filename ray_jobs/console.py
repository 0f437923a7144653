"""How every command speaks: one JSON object or plain lines, one-line errors, stable exit codes."""

import errno
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from synth_ct.kit.quarantine import printable

if TYPE_CHECKING:
    from synth_ct.kit.effort import Effort

DONE, FAILED, MISUSED, STRICT, TOO_MUCH_QUARANTINE = 0, 1, 2, 3, 4
INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""
MAX_QUARANTINE = 0.05
"""Share of inputs, exact duplicates not counted, that may be set aside before exit code 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How much quarantine a person accepts."""

    max_quarantine: float = MAX_QUARANTINE
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_quarantine <= 1:
            raise typer.BadParameter(f"--max-quarantine is a share, 0 to 1: {self.max_quarantine}")

    def exit_code(self, total: int, quarantined: int, duplicates: int) -> int:
        """0, 3 (strict and anything at all), or 4 (more than the accepted share)."""
        if self.strict and quarantined:
            return STRICT
        if quarantined - duplicates > self.max_quarantine * total:
            return TOO_MUCH_QUARANTINE
        return DONE


def tell(result: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """The one answer of a command, on stdout: for machines or for people."""
    print(json.dumps(result, allow_nan=False) if as_json else "\n".join(lines))


@contextmanager
def working(workers: int) -> Iterator[Callable[[str], "Effort"]]:
    """How fast to work, with a progress bar on stderr for whatever is under way."""
    from synth_ct.kit.effort import Effort
    from synth_ct.kit.numerics import device
    from synth_ct.kit.progress import Tick, progress

    with ExitStack() as bars:

        def effort(name: str) -> Effort:
            def begin(total: int) -> Tick:
                bars.close()  # the one before is finished
                return bars.enter_context(progress(name, total))

            return Effort(workers=workers, device=device(), begin=begin)

        yield effort


def finish(code: int, quarantined: int) -> None:
    """Leave with a code; the last log line says why it is not 0."""
    if code != DONE:
        print(f"finished, {quarantined} set aside (exit {code})", file=sys.stderr)
        raise typer.Exit(code)


def guarded(command: Callable[[list[str]], Any], arguments: list[str]) -> int:
    """Run a command line: one line for what a person can mend, a traceback only with --debug."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        result = command(arguments or ["--help"])
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} (--help says more)", debug, MISUSED)
    except OSError as error:
        return _complain(_of_the_system(error), debug, FAILED)
    except (ValueError, RuntimeError) as error:
        return _complain(" ".join(str(error).split()) or repr(error), debug, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    if result == INTERRUPTED:
        return _complain("stopped; run the same command again to continue", debug, FAILED)
    return result if isinstance(result, int) else DONE


def _of_the_system(error: OSError) -> str:
    """The system's own words, after the file they are about."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; free space and run the same command again to continue"
    if error.filename is None or error.strerror is None:
        return " ".join(str(error).split()) or repr(error)
    words = error.strerror[:1].lower() + error.strerror[1:]
    return f"{printable(str(error.filename))}: {words}; mend that and run the same command again"


def _complain(message: str, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code
