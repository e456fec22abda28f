"""When a source has no pairs of a layout: what is there, and options that would take it."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

from derain.data.sources.catalogue.usual import CLEAN_NAMES, RAINY_NAMES
from derain.data.sources.layouts import Dataset, Layout
from derain.data.sources.matching import match_layout
from derain.data.sources.names import fold, stem
from derain.data.sources.selection import Naming

_FOLDERS = 24
"""How many folders are compared with each other: those with the most images."""

_TRIED = 2
"""How many patterns are tried on all names, and as many again with fields for folders."""

_RAINY_WORDS = ("rainy", "rain", "input", "degraded", "noisy", "lq", "rd", "wet", "in", "o", "x")
_CLEAN_WORDS = (
    *("groundtruth", "ground_truth", "norain", "no_rain", "derained", "target", "clean", "clear"),
    *("sharp", "label", "dry", "gt", "hq", "nr", "bg", "b", "y"),
)
_WORD = "|".join(sorted((*_RAINY_WORDS, *_CLEAN_WORDS), key=len, reverse=True))
_AFFIXES = (
    re.compile(rf"(?P<before>(?P<word>{_WORD})[-_. ]*)(?P<core>.*?)(?P<after>)", re.IGNORECASE),
    re.compile(rf"(?P<before>)(?P<core>.*?)(?P<after>[-_. ]*(?P<word>{_WORD}))", re.IGNORECASE),
)


def what_is_there(names: Sequence[str]) -> str:
    """The folders with the most images, with a count and an example for each."""
    folders = _by_folder(names)
    ordered = sorted(folders.items(), key=lambda it: -len(it[1]))[:4]
    texts = [
        f"{names[0]} ({len(names):,} images in {folder or '.'}/)" if len(names) > 1 else names[0]
        for folder, names in ordered
    ]
    more = len(folders) - len(texts)
    return "; ".join(texts) + (f"; and images in {more:,} other folders" if more else "")


def suggest(row: Dataset, source: Path, split: str, names: Sequence[str]) -> str | None:
    """The options `--rain ... --clean ...` that find the most pairs, ready to paste.

    None if none can be derived from the names. `row` is a dataset with clean images in files of
    their own.
    """
    best, most = None, 0
    for likely in _most_likely(_candidates(names)):
        layout = Naming(likely.rain, likely.clean).layout(row, split)
        count = len(match_layout(layout, row, source, names).pairs)
        if count > most:
            best, most = likely, count
    if best is None:
        return None
    options = f"--rain {_quoted(best.rain)} --clean {_quoted(best.clean)}"
    many = "{n:d}" in best.rain  # several images for each of the others: they are the rainy ones
    if not many and _rainy_score(best.rain) == _rainy_score(best.clean):
        return (
            f"{options}\nNothing in the names says which images are rainy: the two may be swapped."
        )
    return options


def nearest_layout(layouts: Sequence[Layout], names: Sequence[str]) -> str:
    """The layout whose patterns look most like the names."""
    examples = list(names[:: max(1, len(names) // 8)][:8])
    return str(
        max(
            layouts,
            key=lambda it: max(
                difflib.SequenceMatcher(
                    None, f"{it.folder}/{it.rain}".lower(), name.lower()
                ).ratio()
                for name in examples
            ),
        )
    )


def suggest_unpaired(names: Sequence[str]) -> str | None:
    """The option `--rain` for the folder with the most images; None if it cannot be written."""
    folders = {folder: names for folder, names in _by_folder(names).items() if _is_plain(folder)}
    if not folders:
        return None
    folder = max(folders, key=lambda it: len(folders[it]))
    return f"--rain {_quoted(f'{folder}/{{name}}'.lstrip('/'))}"


def _quoted(pattern: str) -> str:
    """Quoted for a shell, in which braces mean something."""
    quoted = shlex.quote(pattern)
    return quoted if quoted != pattern else f"'{pattern}'"


@dataclass(frozen=True)
class _Candidate:
    """Patterns that may fit, and the number of pairs that the names of two folders would make."""

    pairs: int
    rain: str
    clean: str

    @property
    def has_folders(self) -> bool:
        """True if a field stands for a folder."""
        return "folder}" in self.rain


def _most_likely(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those with the most pairs: a few, because each is tried on all names."""
    found = {(it.rain, it.clean): it for it in candidates if it.pairs}
    ordered = sorted(found.values(), key=lambda it: -it.pairs)
    literal = [it for it in ordered if not it.has_folders]
    return literal[:_TRIED] + [it for it in ordered if it.has_folders][:_TRIED]


def _candidates(names: Sequence[str]) -> Iterator[_Candidate]:
    """Patterns of rainy and clean names that may fit, in two folders or in one."""
    stems = {
        folder: {stem(name.rpartition("/")[2]) for name in inside if _is_plain(name)}
        for folder, inside in _by_folder(names).items()
    }
    stems = {folder: inside for folder, inside in stems.items() if inside}
    largest = sorted(stems, key=lambda it: (-len(stems[it]), it))[:_FOLDERS]
    for one, other in combinations(sorted(largest), 2):
        rain, clean = _oriented(one, other, stems)
        for pairs, ours, theirs in _name_patterns(stems[rain], stems[clean]):
            for above, clean_above in _folder_patterns(rain, clean):
                yield _Candidate(
                    pairs, f"{above}/{ours}".lstrip("/"), f"{clean_above}/{theirs}".lstrip("/")
                )
    for folder in largest:
        start = f"{folder}/" if folder else ""
        for pairs, ours, theirs in _affixes_within(stems[folder]):
            yield _Candidate(pairs, start + ours, start + theirs)


def _oriented(one: str, other: str, stems: dict[str, set[str]]) -> tuple[str, str]:
    """The folder that is likely rainy, and the other."""
    scores = [_rainy_score(it, *_common_ends(stems[it])) for it in (one, other)]
    if scores[0] == scores[1]:
        return (one, other) if len(stems[one]) >= len(stems[other]) else (other, one)
    return (one, other) if scores[0] > scores[1] else (other, one)


def _rainy_score(*texts: str) -> int:
    """How much names say that images are rainy; negative if they say clean."""
    score = 0
    for part in re.split(r"[/ ._-]+", re.sub(r"no[-_ ]rain", "norain", fold("/".join(texts)))):
        if part in CLEAN_NAMES or re.search(r"norain|derain|clean|clear|truth", part):
            score -= 2
        elif part in RAINY_NAMES or "rain" in part:
            score += 1
    return score


def _folder_patterns(rain: str, clean: str) -> Iterator[tuple[str, str]]:
    """Both folders as they are; and with a field for each folder that both are in."""
    yield rain, clean
    ours, theirs = rain.split("/"), clean.split("/")
    if len(ours) != len(theirs) or len(ours) < 2:
        return
    fields = iter(("folder", "subfolder", "subsubfolder"))
    shared = {
        part: f"{{{field}}}"
        for part, field in zip(
            (a for a, b in zip(ours, theirs, strict=True) if a == b), fields, strict=False
        )
    }
    if shared:
        yield (
            "/".join(shared.get(part, part) for part in ours),
            "/".join(shared.get(part, part) for part in theirs),
        )


def _name_patterns(rainy: set[str], clean: set[str]) -> Iterator[tuple[int, str, str]]:
    """Patterns of the file names of two folders, and how many pairs they make."""
    folded = {*map(fold, clean)}
    yield sum(fold(it) in folded for it in rainy), "{name}", "{name}"
    ours, theirs = _common_ends(rainy), _common_ends(clean)
    cores = {fold(_core(it, *theirs)) for it in clean}
    pairs = sum(fold(_core(it, *ours)) in cores for it in rainy)
    yield pairs, _pattern(*ours), _pattern(*theirs)
    for mark in ("_", "-", " ", ""):
        numbered = re.compile(rf"(.*?){mark}\d+")
        found = [match[1] for it in rainy if (match := numbered.fullmatch(it))]
        yield sum(fold(it) in folded for it in found), f"{{name}}{mark}{{n:d}}", "{name}"


def _core(name: str, before: str, after: str) -> str:
    return name.removeprefix(before).removesuffix(after)


def _common_ends(stems: set[str]) -> tuple[str, str]:
    """What all names begin and end with, without digits that belong to what differs."""
    if len(stems) < 2:
        return _word_ends(next(iter(stems)))
    start = re.sub(r"\d+$", "", _common_start(stems))
    end = re.sub(r"^\d+", "", _common_start({it[::-1] for it in stems})[::-1])
    shortest = min(map(len, stems))
    return start, end if len(start) + len(end) < shortest else ""


def _common_start(texts: set[str]) -> str:
    """The longest text that all begin with."""
    first, last = min(texts), max(texts)
    same = next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1),
        len(first),
    )
    return first[:same]


def _word_ends(name: str) -> tuple[str, str]:
    """The usual word that a single name begins or ends with."""
    for affix in _AFFIXES:
        if (found := affix.fullmatch(name)) and found["core"]:
            return found["before"], found["after"]
    return "", ""


def _affixes_within(stems: set[str]) -> Iterator[tuple[int, str, str]]:
    """Patterns of rainy and clean names in one folder: each has a usual word at one end."""
    groups: dict[tuple[str, str, bool], set[str]] = {}
    for affix in _AFFIXES:
        for name in islice(sorted(stems), 2000):
            found = affix.fullmatch(name)
            if found and found["core"]:
                is_rainy = fold(found["word"]) in _RAINY_WORDS
                key = (found["before"], found["after"], is_rainy)
                groups.setdefault(key, set()).add(found["core"])
    for (before, after, is_rainy), cores in groups.items():
        for (clean_before, clean_after, other_is_rainy), others in groups.items():
            if is_rainy and not other_is_rainy:
                yield (
                    len(cores & others),
                    _pattern(before, after),
                    _pattern(clean_before, clean_after),
                )


def _pattern(before: str, after: str) -> str:
    return f"{before}{{name}}{after}"


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition("/")[0], []).append(name)
    return found


def _is_plain(text: str) -> bool:
    return not set("{}") & set(text)
