"""Why the process of a run or a trial ended, in one line, from what Ray says of it."""

import re

import ray.exceptions

_GUARD = "killed due to the node running low on memory"
_HELD = re.compile(r"Selected to kill: .*?actual memory used=([\d.]+GB)", re.S)
_IN_USE = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB) limit")
_NODE = re.compile(r"\(IP: ([^,)]+)")
LOWER = (
    "Lower train.batch_size, train.micro_batch_size, train.crop_px or data.loader_processes, in a "
    "sweep also sweep.concurrent, or use a machine with more memory"
)


def reason_of(error: BaseException | None, traceback: str) -> str:
    """What ended the process: Ray's guard of the memory, a lost machine, a signal, or its error.

    `error` is what Ray raised, if that is known; `traceback` its text.
    """
    if (found := out_of_memory(f"{error}\n{traceback}")) is not None:
        return found
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in traceback:
        return "its process died with its machine, which left the cluster"
    if isinstance(error, ray.exceptions.RayActorError):
        return (
            "its process died: it was killed (by a signal, the batch system, or the kernel for "
            "want of memory, see `dmesg`), or crashed"
        )
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "its process died"


def out_of_memory(text: str) -> str | None:
    """What Ray's guard of the memory has done, if the text of an error is its own; else None."""
    if _GUARD not in text:
        return None
    held, in_use, node = _HELD.search(text), _IN_USE.search(text), _NODE.search(text)
    return (
        f"Ray ended its process, as the machine{f' {node[1]}' if node else ''} ran out of memory"
        + (f": {in_use[1]} of {in_use[2]} were in use" if in_use else "")
        + (f", {held[1]} by this process" if held else "")
        + f". {LOWER}"
    )
