"""The config: valid input, the precedence of its parts, and its error messages."""

import inspect
from pathlib import Path

import pytest

from derain.config import Config, load_config
from derain.config.networks import FCLIPUNetConfig
from derain.config.section import Section
from derain.config.source import keys_of, sections_in
from derain.errors import ConfigError
from derain.models import MODELS

MINIMAL = "name: tiny\nmodel: {name: fclip_unet}\ntrain: {steps: 5}\n"


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def message(folder: Path, text: str, *overrides: str, profile: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides=overrides, profile=profile)
    return str(caught.value)


def test_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL), overrides=["train.lr=1e-4", "seed=3"])
    assert config.train.lr == pytest.approx(0.0001)
    assert load_config(write(tmp_path, config.to_yaml(), "resolved.yaml")) == config


def test_overrides_precede_profile_precedes_file_precedes_base(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "seed: 1\noutput_dir: base\n", "base.yaml")
    text = (
        "extends: base.yaml\nprofile: a\ntrain: {batch_size: 2, crop_px: 32}\n"
        "profiles:\n  a: {train: {crop_px: 48}}\n  b: {train: {crop_px: 64}}\n"
    )
    config = load_config(write(tmp_path, text), overrides=["seed=9"])
    assert (config.seed, config.train.steps, config.train.batch_size) == (9, 5, 2)
    assert (config.train.crop_px, config.profile) == (48, "a")
    assert load_config(write(tmp_path, text), profile="b").train.crop_px == 64
    assert load_config(write(tmp_path, text + "  c:\n"), profile="c").train.crop_px == 32


def test_unknown_key_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    found = message(tmp_path, MINIMAL + "loss:\n  lamda_p: 2\n")
    assert f"{tmp_path}/run.yaml:5: unknown key `loss.lamda_p`" in found
    assert "`loss.lambda_p`" in found


def test_wrong_type_names_what_was_found(tmp_path: Path) -> None:
    found = message(tmp_path, MINIMAL, "train.steps=many")
    assert "--set train.steps=many: `train.steps`" in found
    assert "found 'many'" in found


def test_error_in_a_profile_names_the_line_there(tmp_path: Path) -> None:
    text = MINIMAL + "profiles:\n  demo:\n    train:\n      stepz: 3\n"
    assert "run.yaml:7: unknown key `train.stepz`" in message(tmp_path, text, profile="demo")


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("name: [", [], "not valid YAML"),
        ("- 1", [], "expected keys and values"),
        (MINIMAL + "seed: 1\nseed: 2\n", [], "`seed` is given twice"),
        (MINIMAL, ["train.steps"], "expected KEY=VALUE"),
        (MINIMAL, ["train.lr=nan"], "finite"),
        (MINIMAL, ["data.test=x"], "data.test is given without data.train"),
        (MINIMAL, ["data.eval=x"], "there is no key `data.eval` any more"),
        (MINIMAL, ["data.train=x", "data.choose_on_test=true"], "choose_on_test needs data.test"),
        (
            MINIMAL,
            ["data.train=x", "data.test=y", "data.validation=z", "data.choose_on_test=true"],
            "leave `validation` empty",
        ),
        (MINIMAL, ["train.num_workers=17"], "less than"),
        ("model: {name: fclip_unet}\ntrain: {steps: 5}", [], "`name` is missing"),
        (MINIMAL + "extends: run.yaml\n", [], "circular"),
        (MINIMAL + "extends: 5\n", [], "expected the name of one file, found 5"),
        (MINIMAL + "profile: d\nprofiles: [d]\n", [], "`profiles`: expected keys and values"),
        (MINIMAL + "profile: d\nprofiles: {d: 1}\n", [], "`d`: expected keys and values"),
        (MINIMAL + "profile: [d]\nprofiles: {d: {}}\n", [], "no profile `['d']`"),
        (MINIMAL + "seed: &a [*a]\n", [], "an alias (*) refer to itself"),
        (MINIMAL, ["seed=&a [*a]"], "an alias (*) refer to itself"),
        (MINIMAL, ["seed=2026-99-99"], "seed=2026-99-99"),
        (MINIMAL, ["seed=99999999999999999999999"], "seed=99999999999999999999999: `seed`"),
        (MINIMAL, ["train.betas=[2, 5]"], "less than 1"),
        (MINIMAL, ["train.micro_batch_size=0"], "micro_batch_size=0: `train.micro_batch_size`"),
        (MINIMAL, ["output_dir=s3://b/x"], "a folder on this machine"),
        (MINIMAL, ["name=a/../../../b"], "below output_dir"),
        (MINIMAL, ["train=5"], "`train`: expected keys and values, found 5"),
        (MINIMAL, ["model=prenet"], "such as {name: prenet}, found 'prenet'"),
        (MINIMAL, ["train.steps=true"], "`train.steps`: expected a number, found True"),
        (MINIMAL, ["train.lr=false"], "`train.lr`: expected a number, found False"),
        (MINIMAL, ["train.betas=[true, 0.9]"], "expected a number, found [True, 0.9]"),
        (MINIMAL, ["train.betas=0.9"], "expected a list, found 0.9"),
        (MINIMAL, ["data.train=~no-such-user/x"], "there is no home folder of that user"),
    ],
)
def test_bad_input_has_one_clear_message(
    tmp_path: Path, text: str, overrides: list[str], expected: str
) -> None:
    assert expected in message(tmp_path, text, *overrides)


def test_yaml_tags_build_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    found = message(tmp_path, MINIMAL + f"seed: !!python/object/apply:os.mkdir ['{marker}']\n")
    assert "seed" in found
    assert not marker.exists()


def test_missing_file_and_unknown_profile_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    assert "no profile `x`" in message(tmp_path, MINIMAL, profile="x")


def test_model_section_mirrors_the_network() -> None:
    parameters = inspect.signature(MODELS["fclip_unet"]).parameters
    fields = {name: info.default for name, info in FCLIPUNetConfig.model_fields.items()}
    assert fields.pop("name") == "fclip_unet"
    assert fields == {name: parameter.default for name, parameter in parameters.items()}


def test_keys_reach_every_level() -> None:
    keys = keys_of(Config)
    assert {"register.name", "model.ldfps_sigma", "data.synthetic.train_pairs"} <= set(keys)
    assert "register_" not in keys


def test_every_key_is_documented() -> None:
    missing = []
    pending: list[type[Section]] = [Config]
    while pending:
        section = pending.pop()
        for name, field in section.model_fields.items():
            below = list(sections_in(field.annotation))
            pending += below
            if not (field.description or below or name == "name"):
                missing.append(f"{section.__name__}.{name}")
    assert not missing


def test_digest_changes_with_any_value(tmp_path: Path) -> None:
    config: Config = load_config(write(tmp_path, MINIMAL))
    assert config.replaced({"train.lr": 0.5}, "test").digest() != config.digest()
    assert config.replaced({}, "test").digest() == config.digest()


def test_stages_start_in_order_and_before_the_end(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    stage = {"from_step": 3, "crop_px": 32, "batch_size": 2}
    staged = config.replaced({"train.steps": 9, "train.progressive": [stage]}, "test")
    assert [item.from_step for item in staged.train.stages] == [0, 3]
    for starts in ((0,), (9,), (4, 4), (5, 3)):
        stages = [{**stage, "from_step": step} for step in starts]
        with pytest.raises(ConfigError, match="progressive: the stages start at steps"):
            config.replaced({"train.steps": 9, "train.progressive": stages}, "test")


def test_the_smallest_batch_of_all_stages_has_a_pair_for_every_worker(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    stage = {"from_step": 3, "crop_px": 32, "batch_size": 1}
    values = {"train.steps": 9, "train.progressive": [stage], "train.num_workers": 2}
    with pytest.raises(ConfigError, match="batch_size 1 is less than"):
        config.replaced(values, "test")


def test_a_user_defined_network_takes_any_option() -> None:
    tree = {"name": "run", "train": {"steps": 1}, "model": {"name": "my.nets:Net", "width": 8}}
    config = Config.model_validate(tree)
    assert config.model.model_dump() == {"name": "my.nets:Net", "width": 8}
    changed = config.replaced({"model.depth": 3}, "test")
    assert changed.model.model_dump(exclude={"name"}) == {"width": 8, "depth": 3}
    with pytest.raises(ConfigError, match=r"unknown key `model\.depth`"):
        config.replaced({"model": {"name": "prenet", "depth": 3}}, "test")
    with pytest.raises(ConfigError, match=r"expected one of.*prenet.*module:Class"):
        config.replaced({"model.name": "prennet"}, "test")


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        load_config(Path("/dev/zero"))


def test_aliases_of_aliases_are_refused(tmp_path: Path) -> None:
    lines = [
        "a0: &a0 [x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)),
    ]
    assert "more than 100,000 values" in message(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL.replace("5", "9" * 5000), "4300 digits"),
        ("? [a, b]\n: 2\n", "expected a word as the key"),
        ("model:\n  <<: {name: prenet}\n", "no merge key `<<`"),
        (MINIMAL.replace("tiny", "-x"), "expected letters and digits"),
    ],
)
def test_odd_yaml_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in message(tmp_path, text)


def test_a_file_that_is_not_utf_8_is_explained(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes("name: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"found the byte 0xe4 at 6. Save the file as UTF-8"):
        load_config(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("{train.lr: [1, 2]}", "choice, uniform, loguniform, integers, such as {grid: [1, 2]}"),
        ("{train.lr: 1}", "`sweep.space.train.lr`: expected one of grid, choice"),
        ("{train.lr: 1}", "such as {grid: [1]}, found 1"),
        ("{train: {lr: {grid: [1]}}}", "config keys with dots, as in `train.lr: {grid:"),
        ("[train.lr]", "`sweep.space`: expected keys and values, found ['train.lr']"),
        ("{train.lr: {grid: 5}}", "expected a list of values, or names with values, found 5"),
        ("{train.lr: {choice: []}}", "expected a list of values, or names with values, found []"),
        ("{train.lr: {uniform: [1]}}", "expected [low, high], found [1]"),
        ("{train.lr: {integers: 3}}", "expected [low, high], found 3"),
    ],
)
def test_a_space_of_another_form_is_explained(tmp_path: Path, space: str, expected: str) -> None:
    found = message(tmp_path, f"{MINIMAL}sweep:\n  space: {space}\n")
    assert expected in found
    assert len(found.splitlines()) == 1
