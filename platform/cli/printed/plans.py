"""What `train` and `sweep` print: plans, results, and what to do next."""

from collections.abc import Mapping
from typing import Any

from derain.cli.printed.scores import psnr_ssim
from derain.evaluation.metric_names import psnr_name, ssim_name, title
from derain.storage.amounts import counted, duration, size


def run_summary(result: Mapping[str, Any]) -> str:
    """A run in a few lines: its metrics, those of the rainy input, its checkpoint."""
    test = result["test"]
    parts = [f"validation {_measured(result)}"]
    if test is not None:
        chosen = ", which has chosen" if test["chosen_on_test"] else ""
        parts.append(f"test {_measured(test)}{chosen}")
    if done := result.get("registered"):
        alias = f" ({done['alias']})" if done["alias"] else ""
        parts.append(f"registered as {done['name']} version {done['version']}{alias}")
    return "\n  ".join(
        [f"{result['run']}: {parts[0]}", *parts[1:], f"checkpoint {result['checkpoint']}"]
    )


def _measured(scored: Mapping[str, Any]) -> str:
    """Metrics in a few words, with the PSNR of the rainy input."""
    metrics, rainy = scored["metrics"], scored["input"]
    psnr, ssim = psnr_ssim(metrics)
    return (
        f"{title(psnr_name(metrics))} {psnr} dB (rainy input {psnr_ssim(rainy)[0]} dB), "
        f"{title(ssim_name(metrics))} {ssim}"
    )


def _network_summary(network: Mapping[str, int]) -> str:
    """Size and cost of a network, as a comment above a YAML config."""
    trained, frozen = network["trained_parameters"] / 1e6, network["frozen_parameters"] / 1e6
    macs = network["macs"] / 1e9
    return (
        f"# {trained:.3f} M trained and {frozen:.3f} M frozen parameters, "
        f"{macs:.2f} G multiply-adds per image of 256x256 px\n"
    )


def run_plan(planned: Mapping[str, Any], resolved: str) -> str:
    """A run's plan as comments above its resolved config: steps, cost, what would stop it."""
    train, estimate = planned["config"]["train"], planned["estimate"]
    begins = planned["resumes_from_step"]
    steps = f"{train['steps']:,} steps" + (f", from step {begins:,} on" if begins else "")
    profile = f", profile {planned['profile']}" if planned["profile"] else ""
    lines = [
        f"{planned['name']}{profile}: {steps}, {train['batch_size']} crops of "
        f"{train['crop_px']} px per step",
        _remaining_cost(estimate).removeprefix(f"{estimate['steps'] or 0:,} steps, "),
        *_room(estimate),
        f"Results in {planned['folder']}"
        + (f"; registered as {planned['register']}" if planned["register"] else ""),
        *(f"Would stop: {warning}" for warning in planned["warnings"]),
    ]
    network = planned["network"]
    head = "".join(f"# {line}\n" for line in lines)
    return head + (_network_summary(network) if network else "") + resolved


def plan_summary(planned: Mapping[str, Any], resolved: str) -> str:
    """A sweep's plan: its cost, what would stop it, its trials, the resolved config."""
    trials = [
        f"  {trial['name']}: {trial['params'] or 'depends on the results of earlier trials'}"
        + ("" if trial["state"] == "planned" else f" ({trial['state']})")
        for trial in planned["trials"]
    ]
    count = counted(len(trials), "trial")
    head = f"{planned['name']}, profile {planned['profile'] or 'none'}: {count}"
    obstacles = [f"Would stop: {warning}" for warning in planned["warnings"]]
    room = _room(planned["estimate"])
    lines = [f"{head}, {_remaining_cost(planned['estimate'])}", *room, *obstacles, *trials]
    return "\n".join(lines) + f"\n\n{resolved}"


def _remaining_cost(estimate: Mapping[str, Any]) -> str:
    """Steps, time, GPU-hours if there are any, and the price."""
    if estimate["seconds"] is None:
        return "not timed"
    if estimate["steps"] == 0:
        return "nothing left to do"
    parts = [f"{estimate['steps']:,} steps", f"about {duration(estimate['seconds'])}"]
    if estimate["gpu_hours"]:
        parts.append(f"{estimate['gpu_hours']:.1f} GPU-hours")
    if estimate.get("cost") is not None:
        parts.append(f"cost {estimate['cost']:.2f}")
    return ", ".join(parts)


def _room(estimate: Mapping[str, Any]) -> list[str]:
    """Memory and disk, in a line; none if nothing is known, or nothing is left to do."""
    if not estimate.get("memory_bytes"):
        return []
    parts = {
        "of memory in each process": estimate["memory_bytes"],
        "of checkpoints": estimate["disk_bytes"],
        "of pixel caches to build": estimate["cache_bytes"],
        "free on the disk": estimate["free_bytes"],
    }
    return [", ".join(f"{size(count)} {what}" for what, count in parts.items())]


def next_steps(result: Mapping[str, Any]) -> str:
    """What to do after a sweep."""
    registered = result["registered"]
    if not registered:
        return "\nNext: derainctl ui"
    model = f"models:/{registered['name']}@{registered['alias']}"
    return f"\nNext: derainctl ui, or derainctl predict {model} IMAGES --out FOLDER"
