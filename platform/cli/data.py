"""Commands for datasets: synthesize, datasets, prepare, verify, leaks."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import RenderableType

from derain.cli import complete
from derain.cli.options import Density, Json, Layouts
from derain.cli.printed import datasets as output
from derain.cli.printed.results import Results
from derain.storage.amounts import counted


def synthesize(
    out: Annotated[Path, typer.Argument(help="A new folder for the pairs.")],
    clean: Annotated[
        Path | None, typer.Option(help="A folder of clean photographs. Default: bundled ones.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 100,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal images.")] = 0,
    density: Annotated[Density, typer.Option(help="How heavy the rain is.")] = "mixed",
    size_px: Annotated[
        int | None,
        typer.Option(help="Side of square crops in pixels. Default: no crop."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Render rain on clean photographs and write a paired folder.

    Exit code 1 if a photograph cannot be used; the others are.
    """
    results = Results(as_json)
    from derain.data.synthetic.synthesis import synthesize

    done = synthesize(clean, out, count=count, seed=seed, density=density, size_px=size_px)
    results.show(done, f"{counted(done.pairs, 'pair')} in {done.folder}")
    if done.left_out:
        raise typer.Exit(1)


def datasets(
    names: Annotated[
        list[str] | None, typer.Argument(help="Show these in detail. Default: a table of all.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Report which are present in this folder.")
    ] = None,
    layouts: Layouts = None,
    as_json: Json = False,
) -> None:
    """List the known datasets: number of pairs, file layout, source and licence."""
    results = Results(as_json)
    from derain.pipelines.datasets import datasets

    rows = [dataclasses.asdict(row) for row in datasets(root, names, layouts)]
    if names:
        text: RenderableType = "\n\n".join(map(output.dataset_entry, rows))
    else:
        text = output.dataset_table(
            rows, with_found=root is not None, on_terminal=results.on_terminal
        )
    results.show({"datasets": rows}, text)


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A name that `derainctl datasets` lists.", autocompletion=complete.datasets
        ),
    ],
    source: Annotated[str, typer.Argument(help="The dataset's folder, s3://... or gs://...")],
    out: Annotated[str, typer.Argument(help="A new folder, s3://... or gs://...")],
    split: Annotated[str | None, typer.Option(help="Default: the dataset's first split.")] = None,
    layouts: Layouts = None,
    rain: Annotated[
        str | None, typer.Option(help="Rainy files, such as 'in/{id}_{n:d}.jpg'.")
    ] = None,
    clean: Annotated[
        str | None, typer.Option(help="Their clean files, such as 'gt/{id}.jpg'.")
    ] = None,
    clean_half: Annotated[
        Literal["left", "right"] | None,
        typer.Option(help="The clean half, if a file holds both images."),
    ] = None,
    share: Annotated[
        str, typer.Option(help="LOW:HIGH, a range of the clean images within 0:1.")
    ] = "0:1",
    without: Annotated[
        Path | None, typer.Option(help="Leave out the images that this leaks.json lists.")
    ] = None,
    convert: Annotated[
        bool,
        typer.Option(
            help="Store images of 16 bits, other colours, alpha or a rotation as plain PNG."
        ),
    ] = False,
    decode: Annotated[
        bool, typer.Option(help="Also decode every image to check it; slower.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Fail if any image or label is left out, and list all of them.")
    ] = False,
    clean_once: Annotated[
        bool, typer.Option("--clean-once", help="Store each clean image once, not once per pair.")
    ] = False,
    shard_mib: Annotated[int, typer.Option(min=1, help="Maximum size of a shard, in MiB.")] = 128,
    pairs_per_shard: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of pairs in a shard.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Your own data: its name, for the dataset card.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", "--license", help="Your own data: its licence, such as CC-BY-4.0."
        ),
    ] = None,
    source_url: Annotated[
        str | None, typer.Option("--source", help="Your own data: where it is from.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a published dataset to shards, an index and a manifest."""
    results = Results(as_json)
    from derain.data.sources.selection import parse_naming, parse_share
    from derain.pipelines.leaks.report import read_leaked
    from derain.pipelines.prepare.options import PrepareOptions, dataset_row, parse_card
    from derain.pipelines.prepare.strict import StrictError
    from derain.pipelines.prepare.verb import prepare

    row = dataset_row(dataset, layouts)
    options = PrepareOptions(
        card=parse_card(row, name, licence, source_url),
        split=split,
        shard_mib=shard_mib,
        pairs_per_shard=pairs_per_shard,
        strict=strict,
        naming=parse_naming(rain, clean, clean_half),
        share=parse_share(share),
        decode=decode,
        convert=convert,
        clean_once=clean_once,
        without=None if without is None else read_leaked(without),
    )
    try:
        done = prepare(row, source, out, options)
    except StrictError as error:
        if as_json:
            results.show({"problems": error.problems}, "")
        raise
    text = f"{counted(done.pairs, 'pair')}, {counted(done.shards, 'shard')} in {done.folder}"
    if done.quarantined:
        text += f"; {counted(len(done.quarantined), 'image')} left out, listed in its manifest.json"
    results.show(done, text)


def verify(
    prepared: Annotated[
        str, typer.Argument(help="A prepared dataset: a folder, s3://... or gs://...")
    ],
    as_json: Json = False,
) -> None:
    """Check every byte of a prepared dataset; exit code 1 if any differs."""
    results = Results(as_json)
    from derain.pipelines.verify import verify

    done = verify(prepared)
    what = f"{counted(done.pairs, 'pair')} in {counted(done.shards, 'shard')}"
    text = f"{what}, all intact: {done.manifest_sha256}"
    results.show(done, text if done.ok else "\n".join(map(str, done.problems)))
    if not done.ok:
        raise typer.Exit(1)


def leaks(
    train: Annotated[str, typer.Argument(help="The prepared dataset for training.")],
    test: Annotated[str, typer.Argument(help="The prepared dataset for testing.")],
    distance: Annotated[
        int | None,
        typer.Option(min=0, max=255, help="Hash bits, of 256, that may differ. Default: 40."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A new folder for the list and the image pairs.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with code 1 if any are found.")] = False,
    as_json: Json = False,
) -> None:
    """Find clean images that two prepared datasets share.

    Exit code 1 if an image cannot be compared, and with --strict if any are shared.
    """
    results = Results(as_json)
    from derain.pipelines.leaks.compare import DISTANCE
    from derain.pipelines.leaks.report import refuse_occupied, summary, write_report
    from derain.pipelines.leaks.verb import leaks

    if report is not None:
        refuse_occupied(report)  # now, not after an hour of hashing
    found = leaks(train, test, distance=DISTANCE if distance is None else distance)
    if report is not None:
        write_report(found, report)
    results.show(found, "\n".join(summary(found)))
    if (strict and found.matches) or any(found.left_out.values()):
        raise typer.Exit(1)
