"""Rows for folders of one's own."""

from derain.data.sources.catalogue.shared import usual
from derain.data.sources.layouts import Dataset, Layout

OWN = (
    Dataset(
        name="paired",
        title="any paired folder",
        about="two sub-folders with usual names, or any names with --rain and --clean",
        splits={"train": (), "test": ()},
        layouts=usual("train", ""),
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
