"""Reading weights: which files and wrappers are accepted, and which are refused."""

import contextlib
import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from derain.models.weights import is_torchscript, load_strictly, read_state_dict


@pytest.mark.parametrize("wrapper", [None, "state_dict", "params", "params_ema", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model.", "net_g."])
def test_wrappers_and_prefixes_are_removed(tmp_path, wrapper, prefix):
    tensors = {f"{prefix}a.weight": torch.ones(2).half(), f"{prefix}count": torch.tensor(3)}
    torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert read.keys() == {"a.weight", "count"}
    assert read["a.weight"].dtype == torch.float32
    assert read["count"].dtype == torch.int64


def test_of_two_states_the_moving_average_is_taken_or_the_named_one(tmp_path, caplog):
    states = {"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}}
    torch.save(states, tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        assert read_state_dict(tmp_path / "w.pth")["a"].tolist() == [1, 1]
    assert "the moving average is taken" in caplog.text
    assert read_state_dict(tmp_path / "w.pth", "params")["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="no tensors 'g'; state dicts in it: params, params_ema"):
        read_state_dict(tmp_path / "w.pth", "g")


def test_states_without_a_rule_to_choose_are_named(tmp_path):
    torch.save({"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}, "step": 3},
               tmp_path / "w.pth")  # fmt: skip
    with pytest.raises(ValueError, match=r"student, teacher\. Choose one with --key"):
        read_state_dict(tmp_path / "w.pth")


def test_a_prefix_of_some_names_only_stays(tmp_path):
    save_file({"model.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.safetensors")
    assert set(read_state_dict(tmp_path / "w.safetensors")) == {"model.a", "b"}
    save_file({"module.a": torch.ones(1)}, tmp_path / "w.safetensors")
    assert set(read_state_dict(tmp_path / "w.safetensors")) == {"a"}


def test_a_checkpoint_with_other_objects_says_how_to_take_its_tensors_out(tmp_path):
    content = {"state_dict": {"a": torch.ones(1)}, "best": np.float64(31.2)}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"numpy.*scalar.*weights_only=False\)\['state_dict'\]"):
        read_state_dict(tmp_path / "w.pth")


def test_both_file_formats_give_the_same_tensors(tmp_path):
    tensors = nn.Linear(3, 2).state_dict()
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        read = read_state_dict(tmp_path / name)
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        read_state_dict(tmp_path / "w.pt")
    with pytest.raises(FileNotFoundError, match="found a folder"):
        read_state_dict(tmp_path)


def test_weights_that_do_not_fit_are_refused_with_their_origin():
    with pytest.raises(ValueError, match=r"(?s)some\.pt do not fit.*Missing.*bias"):
        load_strictly(nn.Linear(3, 2), {"weight": torch.ones(2, 3)}, "some.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(ValueError, match="found something else"):
        read_state_dict(tmp_path / name)


def test_a_pickled_object_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="weights_only"):
        read_state_dict(tmp_path / "w.pt")


def test_a_state_dict_with_other_values_is_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": "text"}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="dict of tensors"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_archive_is_refused_with_a_command_to_convert_it(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "RN50.pt"))
    with pytest.raises(ValueError, match=r"TorchScript.*torch\.jit\.load"):
        read_state_dict(tmp_path / "RN50.pt")


def test_a_damaged_file_is_refused_whatever_torch_says_of_it(tmp_path):
    torch.save({"a.weight": torch.ones(50), "b": torch.ones(3)}, tmp_path / "whole.pth")
    whole, draw = (tmp_path / "whole.pth").read_bytes(), random.Random(0)
    for number in range(120):
        data = bytearray(whole)
        if number % 2:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(number // 10 + 1):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (tmp_path / "w.pth").write_bytes(data)
        with contextlib.suppress(ValueError):  # a changed number is a number
            read_state_dict(tmp_path / "w.pth")


def test_a_zip_without_its_end_is_no_torchscript(tmp_path):
    """Its last bytes say that there is a directory, which is not there."""
    (tmp_path / "w.pth").write_bytes(b"PK\5\6" + b"\xff" * 18)
    assert not is_torchscript(tmp_path / "w.pth")


def test_a_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="found no regular file"):
        read_state_dict(tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no-such-user"):
        read_state_dict("~no-such-user/w.pth")


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_tensors_that_are_not_plain_are_refused(tmp_path):
    for odd in (
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, device="meta"),
    ):
        torch.save({"a": torch.ones(2), "b": odd}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"found 1 that are sparse, .* such as b\."):
            read_state_dict(tmp_path / "w.pth")
