"""`nfspec embed`: the vector that a network has of each image, written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfspec.cli.asking import (
    Backend,
    Bad,
    Batch,
    Network,
    Photos,
    Runtime,
    Size,
    Weights,
    counting,
)
from nfspec.cli.options import Changes, Original
from nfspec.console import print_lines, say
from nfspec.language.overrides import parsed
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.training.embeddings import require_kind, write_embeddings
from nfspec.training.opening import POOL, Source
from nfspec.training.predicting import ask, embedded
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable


def embed(
    network: Network,
    images: Photos,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="File to write, whose name ends in .npz or .parquet."),
    ],
    weights: Weights = None,
    backend: Backend = None,
    runtime: Runtime = None,
    size: Size = None,
    batch: Batch = 16,
    original: Original = False,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write the vector that a network has of each image before its classifier.

    It is the mean of the last feature map over height and width. A .npz has the arrays `images`
    (paths) and `embeddings` (float32, a row for each image); a .parquet has the columns `image` and
    `embedding`. An exported file needs the output pool: nfspec export --outputs logits,pool.

    Images are resized and cropped as they are in evaluation. An image that cannot be read is named
    and left out; the exit status is then 1.

    \b
      nfspec embed nfnet-f0 --weights f0.npz photos/ --out photos.npz

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    require_free(out, force)
    require_kind(out)
    bad = Bad()
    weights = weights_file(weights, say) if weights else None
    source = Source(network, weights, backend, runtime, overrides=parsed(changes or []))
    question = ask(source, images, POOL, size=size, batch=batch, original=original, on_bad=bad)
    with counting(len(question.images)) as step:
        found = embedded(question, step)
    require_free(out, force)  # again: a file may have come to be there meanwhile
    write_embeddings(out, found)
    count, channels = found.vectors.shape
    print_lines([f"wrote {printable(str(out))}: {count:,} images, {channels:,} numbers each"])
    bad.end()
