"""Reading weights: which files and wrappers are accepted, and which are refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from derain.models.weights import load_strictly, read_state_dict


@pytest.mark.parametrize("wrapper", [None, "state_dict", "params"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_removed(tmp_path, wrapper, prefix):
    tensors = {f"{prefix}a.weight": torch.ones(2).half(), f"{prefix}count": torch.tensor(3)}
    torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert read.keys() == {"a.weight", "count"}
    assert read["a.weight"].dtype == torch.float32
    assert read["count"].dtype == torch.int64


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
