"""Data in: synthesize, datasets, prepare, verify, leaks."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from derain.cli import output
from derain.cli.options import Density, Json
from derain.cli.output import Results


def synthesize(
    out: Path,
    clean: Annotated[Path | None, typer.Option(help="Clean photographs; else bundled.")] = None,
    count: Annotated[int, typer.Option(min=1)] = 100,
    seed: int = 0,
    density: Density = "mixed",
    size_px: Annotated[int | None, typer.Option(help="Side of square crops; else whole.")] = None,
    as_json: Json = False,
) -> None:
    """Render rain on clean photographs, as a paired folder."""
    results = Results(as_json)
    from derain.data.synthetic.synthesis import synthesize

    done = synthesize(clean, out, count=count, seed=seed, density=density, size_px=size_px)
    results.show(done, f"{done.pairs} pairs in {done.folder}")


def datasets(
    names: Annotated[list[str] | None, typer.Argument(help="Show these, with layout.")] = None,
    root: Annotated[Path | None, typer.Option(help="Say which lie in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """List the known datasets: pairs, layout, where to get them, terms."""
    results = Results(as_json)
    from derain.pipelines.datasets import datasets

    rows = [dataclasses.asdict(row) for row in datasets(root, names)]
    if as_json or names:
        text = "\n\n".join(map(output.dataset_entry, rows))
        results.show({"datasets": rows}, text)
    else:
        results.show_datasets(rows, with_found=root is not None)


def prepare(
    dataset: Annotated[str, typer.Argument(help="A name of `derainctl datasets`.")],
    source: Annotated[str, typer.Argument(help="A folder, s3://... or gs://...")],
    out: Annotated[str, typer.Argument(help="A new folder, s3://... or gs://...")],
    split: Annotated[str | None, typer.Option(help="Else the dataset's first.")] = None,
    rain: Annotated[str | None, typer.Option(help="Rainy files, as 'in/{id}_{n:d}.jpg'.")] = None,
    clean: Annotated[str | None, typer.Option(help="Their clean files, as 'gt/{id}.jpg'.")] = None,
    clean_half: Annotated[
        Literal["left", "right"] | None, typer.Option(help="Both images are in the rainy file.")
    ] = None,
    share: Annotated[str, typer.Option(help="LOW:HIGH, a part of the clean images.")] = "0:1",
    without: Annotated[
        Path | None, typer.Option(help="Leave out what this leaks.json found.")
    ] = None,
    clean_once: Annotated[
        bool, typer.Option("--clean-once", help="Store a clean image once for its rainy ones.")
    ] = False,
    shard_mib: Annotated[int, typer.Option(min=1, help="Size of a shard at most.")] = 128,
    strict: Annotated[bool, typer.Option(help="Fail if any image cannot be used.")] = False,
    decode: Annotated[bool, typer.Option(help="Decode every image too: slower.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a dataset as published into shards, index and manifest."""
    results = Results(as_json)
    from derain.data.sources.discover import naming, share_of
    from derain.pipelines.leaks.verb import shared_images
    from derain.pipelines.prepare.verb import prepare

    done = prepare(
        dataset,
        source,
        out,
        split=split,
        shard_mib=shard_mib,
        strict=strict,
        naming=naming(rain, clean, clean_half),
        share=share_of(share),
        decode=decode,
        clean_once=clean_once,
        without=None if without is None else shared_images(without),
    )
    text = f"{done.pairs} pairs, {done.shards} shards in {done.folder}"
    if done.quarantined:
        text += f"; {len(done.quarantined)} images left out, see its manifest.json"
    results.show(done, text)


def verify(
    prepared: Annotated[str, typer.Argument(help="A folder that `prepare` wrote, or s3://...")],
    as_json: Json = False,
) -> None:
    """Check every byte of a prepared dataset; exit code 1 if any is another one."""
    results = Results(as_json)
    from derain.pipelines.verify import verify

    done = verify(prepared)
    text = f"{done.pairs} pairs in {done.shards} shards are whole: {done.manifest_sha256}"
    results.show(done, text if done.ok else "\n".join(map(str, done.problems)))
    if not done.ok:
        raise typer.Exit(1)


def leaks(
    train: Annotated[str, typer.Argument(help="A prepared dataset, or s3://... of one.")],
    test: Annotated[str, typer.Argument(help="Another one.")],
    distance: Annotated[int | None, typer.Option(min=0, max=255, help="Bits, of 256.")] = None,
    report: Annotated[Path | None, typer.Option(help="A new folder for the images.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit code 1 where there are any.")] = False,
    as_json: Json = False,
) -> None:
    """Find clean images that are in both of two prepared datasets."""
    results = Results(as_json)
    from derain.pipelines.leaks.report import refuse_occupied, summary, write_report
    from derain.pipelines.leaks.verb import DISTANCE, leaks

    if report is not None:
        refuse_occupied(report)  # not after an hour of hashing
    found = leaks(train, test, distance=DISTANCE if distance is None else distance)
    if report is not None:
        write_report(found, report)
    results.show(found, "\n".join(summary(found)))
    if strict and found.matches:
        raise typer.Exit(1)
