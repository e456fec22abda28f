"""Measured rows beside quoted ones: what is comparable, what is best, why cells are empty."""

from statistics import fmean
from typing import Any

import pytest

from derain.evaluation.tables.cells import BEST, SECOND, Row, Table
from derain.evaluation.tables.compose import tables_of
from derain.evaluation.tables.methods import row_name
from derain.evaluation.tables.published_tables import PublishedTable, published_tables
from tests.evaluation.tables.measured import RAIN13K, five_sets, item, result


def tables(*datasets: dict[str, Any], **more: Any) -> dict[str, Table]:
    return {table.name: table for table in tables_of(result(*datasets, **more))}


def row(table: Table, method: str, protocol: str = "rain13k v1") -> Row:
    (found,) = [it for it in table.rows if it.method == method and it.protocol == protocol]
    return found


def values(found: Row) -> list[float | None]:
    return [cell.value for cell in found.cells]


def quoted(table: PublishedTable, method: str) -> list[float]:
    return list(map(float, table.rows[method]))


@pytest.mark.parametrize("method", published_tables()[0].rows)
def test_printed_averages_are_unweighted_means_of_the_sets(method: str) -> None:
    (*sets, psnr, ssim) = quoted(published_tables()[0], method)
    assert len(sets) == 10
    odd = method == "DID-MDN"  # 24.58 is printed, see `remarks`
    assert (abs(fmean(sets[::2]) - psnr) > 0.05) == odd
    assert odd or fmean(sets[::2]) == pytest.approx(psnr, abs=0.006)
    assert fmean(sets[1::2]) == pytest.approx(ssim, abs=0.0006)


def test_published_tables_have_a_value_in_every_cell() -> None:
    third, fourth, fifth = published_tables()
    for table in (third, fourth, fifth):
        width = (len(table.sets) + table.averaged) * len(table.metrics)
        assert {len(printed) for printed in table.rows.values()} == {width}
    assert (len(third.rows), len(fourth.rows), len(fifth.rows)) == (11, 9, 11)
    assert fourth.rows["FCLIP-UNet"] == ("36.39", "0.967", "30.36", "0.858", "31.96", "0.913")
    assert fifth.rows["rainy input"] == ("6.211", "33.156")
    assert fifth.quoted_only


def test_a_model_trained_on_rain13k_is_ranked_among_the_quoted_methods() -> None:
    table = tables(*five_sets(), trained_on=RAIN13K)["table3"]
    ours = row(table, "net@champion")
    assert ours.origin == "measured"
    assert values(ours)[-2:] == pytest.approx([33.2, 0.332])
    assert not ours.reasons
    number = table.rows.index(ours)
    ranks = table.ranks()
    assert ranks[number, 0] == BEST  # 31.50 before FCLIP-UNet's 31.23
    assert ranks[number, 4] == SECOND  # 38.10 after DCTR's 38.19
    assert (number, 2) not in ranks
    fclip = table.rows.index(row(table, "FCLIP-UNet", ""))
    assert ranks[fclip, 0] == SECOND
    rainy = table.rows.index(row(table, "rainy input"))
    assert not any(at == rainy for at, _ in ranks)


def test_stated_training_data_is_believed_and_said_to_be_stated() -> None:
    stated = [{"dataset": "rain13k", "split": "train", "stated": True}]
    table = tables(*five_sets(), trained_on=stated)["table3"]
    assert not row(table, "net@champion").reasons
    assert "What was stated, not recorded: the training data of net@champion." in table.notes


@pytest.mark.parametrize(
    ("measured", "more", "reason"),
    [
        (item("rain13k", "rain100h", 40), {}, "its training data is not known"),
        (
            item("rain13k", "rain100h", 40),
            {"trained_on": [{"dataset": "rain100h", "split": "train"}]},
            "trained on rain100h/train; the quoted methods were trained on Rain13K",
        ),
        (
            item("rain13k", "rain100h", 40),
            {"trained_on": [{"dataset": "rain13k", "split": "train", "pairs": 200}]},
            "trained on rain13k/train (200 pairs); the quoted methods were trained on Rain13K",
        ),
        (
            item("rain100h", "test", 40),
            {"trained_on": RAIN13K},
            "images of rain100h/test, not of Rain13K's Rain100H",
        ),
        (
            item("rain13k", "rain100h", 40, images=20),
            {"trained_on": RAIN13K},
            "20 images of Rain100H; published: 100",
        ),
        (
            item("rain13k", "rain100h", 40, left_out=2),
            {"trained_on": RAIN13K},
            "2 of 100 images of Rain100H were left out",
        ),
        (
            item("rain13k", "rain100h", 40, protocols=["five_set"]),
            {"trained_on": RAIN13K},
            "measured under five_set; the quoted values fit rain13k",
        ),
        (
            item("rain13k", "rain100h", 40),
            {"trained_on": RAIN13K, "remarks": ["3 of the results are JPEG files"]},
            "3 of the results are JPEG files",
        ),
    ],
)
def test_what_is_not_comparable_is_shown_with_the_reason_and_not_ranked(
    measured: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    table = tables(measured, **more)["table3"]
    (ours,) = [it for it in table.rows if it.method == "net@champion"]
    cell = ours.cells[2]
    assert cell.value == 40
    assert [it for it in (*ours.reasons, *cell.reasons) if reason in it]
    assert table.ranks()[table.rows.index(row(table, "AFENet", "")), 2] == BEST  # 31.22


def test_missing_sets_are_empty_cells_with_the_reason() -> None:
    found = tables(item("rain13k", "rain100h", 30.0), trained_on=RAIN13K)
    assert list(found) == ["table3", "measured"]
    ours = row(found["table3"], "net@champion")
    assert values(ours) == [None, None, 30.0, 0.3] + [None] * 8
    assert ours.cells[0].reasons == ("not measured",)
    assert ours.cells[-1].reasons == ("the mean needs all 5 sets",)


def test_a_mean_with_marked_values_is_marked() -> None:
    sets = five_sets()
    sets[1] |= {"dataset": "rain100h", "split": "test"}
    ours = row(tables(*sets, trained_on=RAIN13K)["table3"], "net@champion")
    assert ours.cells[-2].value == pytest.approx(33.2)
    assert not ours.cells[-2].ranked
    assert ours.cells[-2].reasons == ("a mean with marked values",)


def test_other_methods_and_other_protocols_have_rows_of_their_own() -> None:
    both = item("rain13k", "rain100h", 30.0, protocols=["rain13k", "five_set"])
    others = [{"name": "theirs", "datasets": [item("rain13k", "rain100h", 30.5)]}]
    found = tables(both, results=others)
    third = [(it.method, it.protocol) for it in found["table3"].rows if it.origin == "measured"]
    assert third == [
        ("rainy input", "rain13k v1"),
        ("net@champion", "rain13k v1"),
        ("theirs", "rain13k v1"),
        ("rainy input", "five_set v1"),
        ("net@champion", "five_set v1"),
    ]
    alone = tables_of({**result(), "model": None, "results": others})
    assert [it.method for it in alone[-1].rows] == ["rainy input", "theirs"]


def test_methods_are_ranked_against_each_other_where_nothing_is_published() -> None:
    others = [{"name": "theirs", "datasets": [item("own", "test", 30.5)]}]
    (table,) = tables(item("own", "test", 30.0), results=others).values()
    assert table.name == "measured"
    assert table.ranks() == {(2, 0): BEST, (2, 1): BEST, (1, 0): SECOND, (1, 1): SECOND}
    assert "Images: 100 of own-test." in table.notes


def test_measured_values_are_never_beside_the_quoted_niqe() -> None:
    real = item("nturain-r", "test", 30.0) | {"by_protocol": {}}
    for name, value in (("niqe_live", 3.5), ("brisque_live", 30.0)):
        sides = {"metrics": {name: value}, "input": {name: value + 1}}
        real["by_protocol"][name] = {"identity": f"{name} v1, LIVE", **sides}
    found = tables(real, item("own", "test", 30.0))
    assert list(found) == ["table5", "measured", "further_metrics"]
    quoted_only = found["table5"]
    assert {it.origin for it in quoted_only.rows} == {"quoted"}
    ranks = quoted_only.ranks()
    assert ranks[quoted_only.rows.index(row(quoted_only, "FCLIP-UNet", "")), 0] == BEST
    assert not any(number == 0 for number, _ in ranks)  # the input is no method
    own = found["further_metrics"]
    assert [column.title for column in own.columns] == [
        "nturain-r-test niqe_live",
        "nturain-r-test brisque_live",
    ]
    assert [values(it) for it in own.rows] == [[4.5, 31.0], [3.5, 30.0]]
    assert "niqe_live: niqe_live v1, LIVE." in own.notes
    assert [column.group for column in found["measured"].columns] == ["own-test"] * 2


def test_mpid_is_never_comparable_and_rgb_metrics_are_found() -> None:
    rgb = item("mpid", "streak", 31.0)
    rgb["by_protocol"] = {"rgb_toolbox": {"metrics": {"psnr_rgb": 31.0, "ssim_rgb": 0.9}}}
    rgb["by_protocol"]["rgb_toolbox"]["input"] = rgb["by_protocol"]["rgb_toolbox"]["metrics"]
    ours = row(tables(rgb)["table4"], "net@champion", "rgb_toolbox")
    assert values(ours)[-2:] == [31.0, 0.9]
    assert "which part of MPID" in ours.cells[-1].reasons[0]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models:/net@champion", "net@champion"),
        ("models:/net/3", "net/3"),
        ("runs/low/checkpoints/step-00000300", "low"),
        ("runs/low/last", "low/last"),
        ("models/prenet-rain100l", "prenet-rain100l"),
        ("net.onnx", "net.onnx"),
    ],
)
def test_a_row_is_called_after_its_model(model: str, name: str) -> None:
    assert row_name(model) == name


def test_a_published_set_that_was_prepared_as_plain_pairs_is_told_its_way_into_the_tables() -> None:
    way = "derainctl prepare rain100l SOURCE OUT --split test"
    plain = tables(item("paired", "test", 30.0))
    assert list(plain) == ["measured"]
    assert way in plain["measured"].notes[-1]
    assert way not in "".join(tables(*five_sets())["measured"].notes)
