"""Published datasets of synthetic rain.

How to read a row: `catalogue/__init__.py`.
"""

from derain.data.sources.catalogue.shared import NO_LICENCE, RESEARCH, common, jorder, usual
from derain.data.sources.layouts import Dataset, Layout

_JORDER = "http://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html"

SYNTHETIC = (
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
            *common("train", "train/Rain13K", "train", "Rain13K"),
            *common("test100", "test/Test100", "Test100"),
            *common("rain100h", "test/Rain100H", "Rain100H"),
            *common("rain100l", "test/Rain100L", "Rain100L"),
            *common("test2800", "test/Test2800", "Test2800"),
            *common("test1200", "test/Test1200", "Test1200"),
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
        layouts=(*jorder("train", "RainTrainH", "train"), *jorder("test", "Rain100H", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainTrainH",),
    ),
    Dataset(
        name="rain100l",
        title="Rain100L",
        about="light synthetic rain on BSD photographs, 481x321; first release",
        splits={"train": (200,), "test": (100,)},
        layouts=(*jorder("train", "RainTrainL", "train"), *jorder("test", "Rain100L", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainTrainL",),
    ),
    Dataset(
        name="rain200h",
        title="Rain200H",
        about="the new release of Rain100H",
        splits={"train": (1800,), "test": (200,)},
        layouts=(*jorder("train", "train"), *jorder("test", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainHeavy",),
        aliases=("rainheavy",),
    ),
    Dataset(
        name="rain200l",
        title="Rain200L",
        about="the new release of Rain100L",
        splits={"train": (1800,), "test": (200,)},
        layouts=(*jorder("train", "train"), *jorder("test", "test")),
        where=_JORDER,
        terms=NO_LICENCE,
        folders=("RainLight",),
        aliases=("rainlight",),
    ),
    Dataset(
        name="rain800",
        title="Rain800 (ID-CGAN)",
        about="synthetic rain; JPEGs of two images side by side, the clean one on the left",
        splits={"train": (700,), "test": (100,), "real": (50, 52)},
        layouts=(
            Layout("train", "{n:d}.jpg", folder="training", clean_half="left"),
            Layout("train", "{n:d}.jpg", folder="train", clean_half="left"),
            Layout("test", "{n:d}.jpg", folder="test_syn", clean_half="left"),
            Layout("test", "{n:d}.jpg", folder="test", clean_half="left"),
            Layout("real", "{n:d}.jpg", folder="test_nature", clean_half="none"),
        ),
        where="https://github.com/hezhangsprinter/ID-CGAN (its link is gone)",
        terms=NO_LICENCE,
        aliases=("idcgan", "id-cgan"),
        unchecked="the number of real photographs (split real): 50 in the paper, 52 in a copy",
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
            *common("train", "train"),
            *common("test", "test"),
        ),
        where="https://github.com/hezhangsprinter/DID-MDN",
        terms=NO_LICENCE,
        folders=("DID-MDN", "DID-MDN-training", "DID-Data"),
        aliases=("did-mdn", "did", "did-data", "rain12000"),
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
        aliases=("rain1400", "ddn", "ddn-data", "rain12600"),
    ),
    Dataset(
        name="rain12",
        title="Rain12",
        about="twelve synthetic pairs",
        splits={"test": (12,)},
        layouts=(
            Layout("test", "rainy/{n:d}.png", ("groundtruth/{n:d}.png",)),
            *common("test", ""),
        ),
        where="http://yu-li.github.io/paper/li_cvpr16_rain.zip",
        terms=NO_LICENCE,
        folders=("test12",),
    ),
    Dataset(
        name="hq-rain",
        title="HQ-RAIN",
        about="high-resolution synthetic rain",
        splits={"train": (4500,), "test": (500,)},
        layouts=(*usual("train", "train"), *usual("test", "test")),
        where="https://github.com/cschenxiang/HQ-RAIN",
        terms=RESEARCH,
    ),
    Dataset(
        name="outdoor-rain",
        title="Outdoor-Rain",
        about="heavy synthetic rain with mist: 15 rainy images for each clean one; Test1 has the "
        "clean images 301-350 of the training set",
        splits={"train": (9000,), "val": (1500,), "test1": (750,)},
        layouts=tuple(
            Layout(
                split,
                f"{rain}/{{scene}}_s{{strength:d}}_a{{haze:d}}.png",
                ("gt/{scene}.png",),
                folder=folder,
            )
            for split, folder in (
                ("train", "train"),
                ("train", ""),
                ("val", "val"),
                ("val", "validation"),
                ("test1", "Test1"),
                ("test1", "test"),
            )
            for rain in ("in", "input")
        ),
        where="https://github.com/liruoteng/HeavyRainRemoval",
        terms=NO_LICENCE,
        folders=("Outdoor-Rain", "OutdoorRain"),
        aliases=("heavyrain",),
        unchecked="the folders of val and Test1",
    ),
    Dataset(
        name="raincityscapes",
        title="RainCityscapes",
        about="synthetic rain and fog by depth on street scenes of Cityscapes, 2048x1024: 36 rainy "
        "images for each clean one",
        splits={"train": (9432,), "val": (1188,)},
        layouts=tuple(
            Layout(
                split,
                f"{rain}leftImg8bit_rain/{split}/{{city}}/{{scene}}_leftImg8bit_rain_{{setting}}.png",
                (f"{clean}leftImg8bit/{split}/{{city}}/{{scene}}_leftImg8bit.png",),
            )
            for split in ("train", "val")
            for rain, clean in (
                ("", ""),
                ("leftImg8bit_trainval_rain/", "leftImg8bit_trainvaltest/"),
            )
        ),
        where="https://www.cityscapes-dataset.com",
        terms=RESEARCH,
        folders=("leftImg8bit_trainval_rain", "cityscapes"),
        unchecked="the counts, quoted from memory, and that val is the paper's test set",
    ),
    Dataset(
        name="rainds-syn",
        title="RainDS, synthetic part",
        about="streaks, drops and both on the same synthetic scenes, one split for each",
        splits={
            f"{split}_{kind}": (count,)
            for split, count in (("train", 1000), ("test", 200))
            for kind in ("streak", "drop", "both")
        },
        layouts=tuple(
            Layout(
                f"{split}_{kind}",
                f"{folder}/{{scene:*}}{name}-{{n:d}}.png",
                ("gt/{scene:*}norain-{n:d}.png",),
                folder=f"{above}{split}",
            )
            for split in ("train", "test")
            for above in ("", "RainDS_syn/")
            for kind, folder, name in (
                ("streak", "rainstreak", "rain"),
                ("drop", "raindrop", "rd"),
                ("both", "rainstreak_raindrop", "rd-rain"),
            )
        ),
        where="https://github.com/Songforrr/RainDS_CCN",
        terms=NO_LICENCE,
        folders=("RainDS", "RainDS_syn"),
        aliases=("rainds",),
        unchecked="the counts, quoted from memory",
    ),
    Dataset(
        name="synrain-13k",
        title="SynRain-13k",
        about="synthetic rain on the photographs of RealRain-1k's authors, about 482x420",
        splits={"train": (), "test": ()},
        layouts=tuple(
            Layout(split, "input/{name}", ("target/{name}",), folder=f"{above}{split}")
            for split in ("train", "test")
            for above in ("", "SynRain-13k/")
        ),
        where="https://github.com/hiker-lw/RealRain-1k",
        terms=NO_LICENCE,
        folders=("RealRain-1k", "RealRain1k"),
        unchecked="the counts are not known; the folders of train",
    ),
    Dataset(
        name="4k-rain13k",
        title="4K-Rain13k",
        about="synthetic rain on photographs of 3840x2160",
        splits={"train": (12500,), "test": (500,)},
        layouts=tuple(
            Layout(split, "input/{name}", (f"{clean}/{{name}}",), folder=split)
            for split in ("train", "test")
            for clean in ("target", "gt")
        ),
        where="https://github.com/cschenxiang/UDR-Mixer",
        terms=NO_LICENCE,
        folders=("4K-Rain13K",),
        unchecked="the name of the clean folder: both names are in use",
    ),
)
