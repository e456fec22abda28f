"""Numbers in messages."""

from derain.storage.amounts import counted, duration, size


def test_numbers_have_their_units_and_nouns() -> None:
    assert [size(n) for n in (0, 1023, 1536, 3 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert [counted(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]


def test_durations_have_their_units() -> None:
    assert [duration(t) for t in (4, 600, 7200 * 3, 86400 * 3)] == [
        "4 s",
        "10 min",
        "6.0 h",
        "3 days",
    ]
