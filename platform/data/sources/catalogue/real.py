"""Published datasets with real rain or real drops, some of them without clean images.

How to read a row: `catalogue/__init__.py`.
"""

from derain.data.sources.catalogue.shared import NO_LICENCE, RESEARCH, common, usual
from derain.data.sources.layouts import Dataset, Layout

REAL = (
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
        aliases=("spa", "spadata"),
    ),
    Dataset(
        name="mpid",
        title="MPID",
        about="streaks, drops, mist (synthetic); driving, surveillance (real, no clean images). "
        "Its folder names are not documented: if they differ, give --rain and --clean",
        splits={"streak": (), "drop": (), "mist": (), "driving": (2495,), "surveillance": (2048,)},
        layouts=(
            *usual("streak", "rain_streak"),
            *usual("drop", "rain_drop"),
            *usual("mist", "rain_mist"),
            Layout("driving", "{name}", folder="RID"),
            Layout("surveillance", "{name}", folder="RIS"),
        ),
        where="https://github.com/panda-lab/Single-Image-Deraining",
        terms=NO_LICENCE,
        unchecked="the folder names, and the counts, quoted from memory",
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
        aliases=("nturain", "spac"),
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
        aliases=("deraindrop",),
        unchecked="the counts, quoted from memory",
    ),
    Dataset(
        name="rainds-real",
        title="RainDS, real part",
        about="streaks, drops and both on the same real scenes, one split for each",
        splits={
            f"{split}_{kind}": (count,)
            for split, count in (("train", 150), ("test", 98))
            for kind in ("streak", "drop", "both")
        },
        layouts=tuple(
            Layout(
                f"{split}_{kind}",
                f"{folder}/{{name}}",
                ("gt/{name}",),
                folder=f"{above}{split}_set",
            )
            for split in ("train", "test")
            for above in ("", "RainDS_real/")
            for kind, folder in (
                ("streak", "rainstreak"),
                ("drop", "raindrop"),
                ("both", "rainstreak_raindrop"),
            )
        ),
        where="https://github.com/Songforrr/RainDS_CCN",
        terms=NO_LICENCE,
        folders=("RainDS", "RainDS_real"),
    ),
    *(
        Dataset(
            name=f"realrain-1k-{letter.lower()}",
            title=f"RealRain-1k-{letter}",
            about=f"{what} real rain; the clean images were derived from video, about 1512x973",
            splits={"train": (784,), "val": (112,), "test": (224,)},
            layouts=tuple(
                Layout(split, "input/{name}", ("target/{name}",), folder=f"{above}{split}")
                for split in ("train", "val", "test")
                for above in ("", f"RealRain-1k-{letter}/")
            ),
            where="https://github.com/hiker-lw/RealRain-1k",
            terms=NO_LICENCE,
            folders=("RealRain-1k", "RealRain1k"),
            unchecked="the counts of the splits, quoted from memory; 1,120 pairs in all",
        )
        for letter, what in (("L", "light"), ("H", "heavy"))
    ),
    Dataset(
        name="lhp-rain",
        title="LHP-Rain",
        about="real rain, 1920x1080; the clean images were derived from 3,000 videos",
        splits={"train": (), "test": ()},
        layouts=(*common("train", "train"), *common("test", "test")),
        where="https://github.com/yunguo224/LHP-Rain",
        terms=NO_LICENCE,
        folders=("LHP-Rain-RGB",),
        unchecked="layout and counts: this is a copy in the layout of Rain13K. If the folders "
        "differ, give --rain and --clean",
    ),
    Dataset(
        name="sirr",
        title="SIRR (semi-supervised image rain removal)",
        about="photographs of real rain without clean images (real), and 20 synthetic pairs (val)",
        splits={"real": (147,), "val": (20,)},
        layouts=tuple(
            layout
            for folder in ("data/rainy_image_dataset", "rainy_image_dataset", "")
            for layout in (
                Layout("real", "real_input/{name}", folder=folder),
                Layout(
                    "val",
                    "input_val/input{n:d}.png",
                    ("label_val/norain{n:d}.png",),
                    folder=folder,
                ),
            )
        ),
        where="https://github.com/wwzjer/Semi-supervised-IRR",
        terms=NO_LICENCE,
        folders=("Semi-supervised-IRR", "DDN-SIRR"),
        aliases=("ddn-sirr", "semi-supervised-irr"),
    ),
)
