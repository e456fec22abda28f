"""One finding of `doctor`, and the time limit under which it is made."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from derain.storage.refusals import expected


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """`fail`: a run would fail; `warn`: it would run, slower or in another way than expected."""
    found: str
    remedy: str = ""
    """Empty for `ok`."""


def within(limit_s: float, name: str, look: Callable[[], list[Check]]) -> list[Check]:
    """The checks that `look` makes; one that fails, if it raises or takes longer than `limit_s`.

    A call that hangs (a lost file server, a node that answers nobody) is left behind in a thread
    that does not keep the process alive.
    """
    found: list[Check] = []
    done = threading.Event()

    def work() -> None:
        try:
            found.extend(look())
        except Exception as error:  # whatever it is, it is a finding
            told = expected(error) or f"{type(error).__name__}: {error}"
            message = " ".join(str(told).split())
            found.append(Check(name, "fail", message, "Look into what the message names."))
        done.set()

    threading.Thread(target=work, daemon=True).start()
    if done.wait(limit_s):
        return found
    remedy = "Find out what does not answer: a file server, a device, a network address."
    return [Check(name, "fail", f"no answer within {limit_s:g} s", remedy)]
