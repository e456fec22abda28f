"""The published rain datasets: one table, with the layouts by which their pairs are found.

The file names in it are patterns (see `patterns`). A dataset that was released in several layouts
has one entry for each: the layout with the most pairs is used, the first of equals. The table is
kept in one file, so that all of a dataset is in one place and a new one is one more entry.

`about` is part of croissant.json, which `verify` compares: other words there fail it for existing
prepared datasets of that row until `prepare` is run on them again.
"""

from collections.abc import Mapping
from itertools import product

from derain.data.sources.layouts import Dataset, Layout

NO_LICENCE = "none stated"
RESEARCH = "research only"

USUAL_FOLDERS = (
    ("input", "target"),
    ("rain", "norain"),
    ("rain", "clean"),
    ("rainy", "clean"),
    ("rainy", "norain"),
    ("data", "gt"),
    ("lq", "gt"),
)
"""Usual names of the rainy and the clean sub-folder."""


def _usual(split: str, *folders: str) -> tuple[Layout, ...]:
    """A rainy and a clean sub-folder of usual names in each of the folders, paired by name."""
    return tuple(
        Layout(split, f"{rain}/{{name}}", (f"{clean}/{{name}}",), folder=folder)
        for folder in folders
        for rain, clean in USUAL_FOLDERS
    )


def _common(split: str, *folders: str) -> tuple[Layout, ...]:
    """The layout of Rain13K, in which many datasets are redistributed."""
    return tuple(
        Layout(split, "input/{name}", ("target/{name}",), folder=folder) for folder in folders
    )


def _yang(split: str, *folders: str) -> tuple[Layout, ...]:
    """The datasets of JORDER (Yang et al.): old release, new release, and their repacks.

    The maps of rain streaks and regions beside the images are not used.
    """
    kinds = (
        ("rain-{n:d}.png", "norain-{n:d}.png"),
        ("norain-{n:d}x2.png", "norain-{n:d}.png"),
        ("rainy/rain-{n:d}.png", "norain-{n:d}.png"),
        ("rain/norain-{n:d}.png", "norain/norain-{n:d}.png"),
        ("rain/X2/norain-{n:d}x2.png", "norain/norain-{n:d}.png"),
        ("input/{name}", "target/{name}"),
    )
    return tuple(
        Layout(split, rain, (clean,), folder=folder)
        for folder, (rain, clean) in product(folders, kinds)
    )


_JORDER = "http://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html"

_ROWS = (
    Dataset(
        name="rain13k",
        title="Rain13K",
        about="Rain800, Rain100H, Rain14000 and Rain12 as one training set; five test sets",
        splits={
            "train": (13711, 13712),
            "test100": (98, 100),
            "rain100h": (100,),
            "rain100l": (100,),
            "test2800": (2800,),
            "test1200": (1200,),
        },
        layouts=(
            *_common("train", "train/Rain13K", "train", "Rain13K"),
            *_common("test100", "test/Test100", "Test100"),
            *_common("rain100h", "test/Rain100H", "Rain100H"),
            *_common("rain100l", "test/Rain100L", "Rain100L"),
            *_common("test2800", "test/Test2800", "Test2800"),
            *_common("test1200", "test/Test1200", "Test1200"),
        ),
        where="https://github.com/swz30/Restormer (Deraining/download_data.py)",
        terms=NO_LICENCE,
        folders=("Datasets",),
    ),
    Dataset(
        name="rain100h",
        title="Rain100H",
        about="heavy synthetic rain on BSD photographs, 481x321; first release",
        splits={"train": (1800, 1254), "test": (100,)},
        layouts=(*_yang("train", "RainTrainH", "train"), *_yang("test", "Rain100H", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainTrainH",),
    ),
    Dataset(
        name="rain100l",
        title="Rain100L",
        about="light synthetic rain on BSD photographs, 481x321; first release",
        splits={"train": (200,), "test": (100,)},
        layouts=(*_yang("train", "RainTrainL", "train"), *_yang("test", "Rain100L", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainTrainL",),
    ),
    Dataset(
        name="rain200h",
        title="Rain200H",
        about="the new release of Rain100H",
        splits={"train": (1800,), "test": (200,)},
        layouts=(*_yang("train", "train"), *_yang("test", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainHeavy",),
    ),
    Dataset(
        name="rain200l",
        title="Rain200L",
        about="the new release of Rain100L",
        splits={"train": (1800,), "test": (200,)},
        layouts=(*_yang("train", "train"), *_yang("test", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainLight",),
    ),
    Dataset(
        name="rain800",
        title="Rain800 (ID-CGAN)",
        about="synthetic rain; JPEGs of two images side by side, the clean one on the left",
        splits={"train": (700,), "test": (100,)},
        layouts=(
            Layout("train", "{n:d}.jpg", folder="training", clean_half="left"),
            Layout("train", "{n:d}.jpg", folder="train", clean_half="left"),
            Layout("test", "{n:d}.jpg", folder="test_syn", clean_half="left"),
            Layout("test", "{n:d}.jpg", folder="test", clean_half="left"),
        ),
        where="https://github.com/hezhangsprinter/ID-CGAN (its link is gone)",
        terms=NO_LICENCE,
    ),
    Dataset(
        name="rain1200",
        title="Rain1200 (DID-MDN)",
        about="rain of three densities; JPEGs of two images side by side, the rainy one on the "
        "left; also released as DID-Data, with one file per image and no densities",
        splits={"train": (12000,), "test": (1200,)},
        layouts=(
            Layout(
                "train",
                "Rain_{density}/train2018new/{n:d}.jpg",
                clean_half="right",
                labels=("density",),
            ),
            Layout("test", "{n:d}.jpg", folder="test", clean_half="right"),
            *_common("train", "train"),
            *_common("test", "test"),
        ),
        where="https://github.com/hezhangsprinter/DID-MDN",
        terms=NO_LICENCE,
        folders=("DID-MDN", "DID-MDN-training", "DID-Data"),
    ),
    Dataset(
        name="rain14000",
        title="Rain14000, also Rain1400 (DDN)",
        about="1,000 clean images with 14 rainy ones each; split by clean image: 1-900, 901-1000",
        splits={
            "train": (12600,),
            "test": (1400,),
            "train11200": (11200,),
            "test2800": (2800,),
        },
        layouts=tuple(
            Layout(
                split,
                "rainy_image/{scene:d}_{rain:d}.jpg",
                ("ground_truth/{scene:d}.jpg",),
                folder=folder,
                only={"scene": scenes},
            )
            for split, folder, scenes in (
                ("train", "training", range(1, 901)),
                ("train", "", range(1, 901)),
                ("test", "testing", range(901, 1001)),
                ("test", "", range(901, 1001)),
                ("train11200", "", range(1, 801)),
                ("test2800", "", range(801, 1001)),
            )
        )
        + tuple(
            Layout(
                split,
                "input/{scene:d}_{rain:d}",
                ("target/{scene:d}_{rain:d}", "target/{scene:d}"),
                folder=folder,
            )
            for split, folder in (("train", "train"), ("test", "test"))
        ),
        where="https://xueyangfu.github.io/projects/cvpr2017.html",
        terms=NO_LICENCE,
        folders=("Rain1400", "rainy_image_dataset", "DDN-Data"),
    ),
    Dataset(
        name="rain12",
        title="Rain12",
        about="twelve synthetic pairs",
        splits={"test": (12,)},
        layouts=(
            Layout("test", "rainy/{n:d}.png", ("groundtruth/{n:d}.png",)),
            *_common("test", ""),
        ),
        where="http://yu-li.github.io/paper/li_cvpr16_rain.zip",
        terms=NO_LICENCE,
        folders=("test12",),
    ),
    Dataset(
        name="spa-data",
        title="SPA-Data",
        about="real rain; the clean images were derived from video; text files list the pairs",
        splits={"train": (638492, 638464, 638493), "test": (1000,)},
        layouts=(
            Layout(
                "train",
                "real_world/{clip}/{frame}/{patch}.png",
                ("real_world_gt/{clip}/{frame}/{patch}.png",),
                listing="real_world.txt",
            ),
            Layout(
                "test",
                "real_test_1000/rain/{name}.png",
                ("real_test_1000/gt/{name}.png",),
                listing="real_test_1000.txt",
            ),
        ),
        where="https://stevewongv.github.io/derain-project.html",
        terms="BSD-3-Clause",
        folders=("SPA",),
    ),
    Dataset(
        name="hq-rain",
        title="HQ-RAIN",
        about="high-resolution synthetic rain",
        splits={"train": (4500,), "test": (500,)},
        layouts=(*_usual("train", "train"), *_usual("test", "test")),
        where="https://github.com/cschenxiang/HQ-RAIN",
        terms=RESEARCH,
    ),
    Dataset(
        name="mpid",
        title="MPID",
        about="streaks, drops, mist (synthetic); driving, surveillance (real, no clean images). "
        "Its folder names are not documented: if they differ, give --rain and --clean",
        splits={"streak": (), "drop": (), "mist": (), "driving": (2495,), "surveillance": (2048,)},
        layouts=(
            *_usual("streak", "rain_streak"),
            *_usual("drop", "rain_drop"),
            *_usual("mist", "rain_mist"),
            Layout("driving", "{name}", folder="RID"),
            Layout("surveillance", "{name}", folder="RIS"),
        ),
        where="https://github.com/panda-lab/Single-Image-Deraining",
        terms=NO_LICENCE,
    ),
    Dataset(
        name="nturain-r",
        title="NTURain, real part (SPAC)",
        about="frames of seven real videos, 640x480, without ground truth",
        splits={"test": ()},
        layouts=(
            Layout("test", "{clip}_Rain/{frame:d}.jpg", labels=("clip",)),
            Layout(
                "test",
                "{clip}_Rain/{frame:d}.jpg",
                folder="Dataset_Testing_RealRain",
                labels=("clip",),
            ),
        ),
        where="https://github.com/hotndy/SPAC-SupplementaryMaterials",
        terms=NO_LICENCE,
        folders=("NTURain", "Dataset_Testing_RealRain"),
    ),
    Dataset(
        name="gt-rain",
        title="GT-RAIN",
        about="real rain: about 300 rainy frames per scene, with one clean frame or one each",
        splits={"train": (26124,), "val": (3300,), "test": (2100,)},
        layouts=tuple(
            Layout(
                split,
                "{scene}/{camera}R-{n:d}.png",
                ("{scene}/{camera}C-{n:d}.png", "{scene}/{camera}C-000.png"),
                folder=f"GT-RAIN_{split}",
                labels=("scene",),
            )
            for split in ("train", "val", "test")
        ),
        where="https://visual.ee.ucla.edu/gt_rain.htm/",
        terms=RESEARCH,
    ),
    Dataset(
        name="raindrop",
        title="RainDrop",
        about="raindrops on glass in front of the camera",
        splits={"train": (861,), "test_a": (58,), "test_b": (249,)},
        layouts=tuple(
            Layout(split, "data/{n:d}_rain", ("gt/{n:d}_clean",), folder=split)
            for split in ("train", "test_a", "test_b")
        ),
        where="https://github.com/rui1996/DeRaindrop",
        terms=NO_LICENCE,
    ),
    Dataset(
        name="paired",
        title="any paired folder",
        about="two sub-folders with usual names, or any names with --rain and --clean",
        splits={"train": (), "test": ()},
        layouts=_usual("train", ""),
        where="your own",
        terms="yours",
        any_split=True,
    ),
    Dataset(
        name="unpaired",
        title="any folder of rainy images",
        about="images without clean partners; use --rain for images in sub-folders",
        splits={"test": ()},
        layouts=(Layout("test", "{name}"),),
        where="your own",
        terms="yours",
        any_split=True,
    ),
)

CATALOGUE: Mapping[str, Dataset] = {row.name: row for row in _ROWS}
