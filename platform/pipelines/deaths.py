"""Why the process of a run or a trial ended, in one line, from what Ray says of it."""

import ray.exceptions

from derain import cluster

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
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return (
            "its process no longer answers: the network or the power of its machine is gone, or "
            "the machine is overloaded"
        )
    if isinstance(error, ray.exceptions.RayActorError):
        return (
            "its process died: it was killed (by a signal, the batch system, or the kernel for "
            "want of memory, see `dmesg`), or crashed"
        )
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "its process died"


def out_of_memory(text: str) -> str | None:
    """What Ray's guard of the memory did to a run, and what to lower; None if it was not that."""
    found = cluster.out_of_memory(text)
    return None if found is None else f"{found}. {LOWER}"
