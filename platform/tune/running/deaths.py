"""Why the process of a trial ended, in one line, from what Ray says of it."""

import re

import ray.exceptions

_GUARD = re.compile("running low on memory|exceeds the memory usage threshold")
_HELD = re.compile(r"memory used=([\d.]+ ?[KMGT]i?B)")
_IN_USE = re.compile(r"was ([\d.]+ ?[KMGT]i?B) ?/ ?([\d.]+ ?[KMGT]i?B)")
_NODE = re.compile(r"\(IP: ([^,)]+)")
LOWER = (
    "Lower sweep.concurrent, train.batch_size, train.crop_px, data.loader_processes or "
    "train.micro_batch_size, or use a machine with more memory"
)


def reason_of(error: BaseException | None, traceback: str) -> str:
    """What ended the process: Ray's guard of the memory, a lost machine, a signal, or its error.

    `error` is what Ray raised, if that is known; `traceback` its text.
    """
    if isinstance(error, ray.exceptions.OutOfMemoryError) or _GUARD.search(traceback):
        return _out_of_memory(str(error) if error else traceback)
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in traceback:
        return "its process died with its machine, which left the cluster"
    if isinstance(error, ray.exceptions.RayActorError):
        return (
            "its process died: it was killed (by a signal, the batch system, or the kernel for "
            "want of memory, see `dmesg`), or crashed"
        )
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "its process died"


def _out_of_memory(text: str) -> str:
    held, in_use, node = _HELD.search(text), _IN_USE.search(text), _NODE.search(text)
    return (
        f"Ray ended its process, as the machine{f' {node[1]}' if node else ''} ran out of memory"
        + (f": {in_use[1]} of {in_use[2]} were in use" if in_use else "")
        + (f", {held[1]} by this process" if held else "")
        + f". {LOWER}"
    )
