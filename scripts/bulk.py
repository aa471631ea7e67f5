"""Embed a dataset on disk with Ray Data; started again after a crash it goes on where it stopped.

    python scripts/bulk.py PACKAGE TEXTS VECTORS --checkpoint FOLDER [--workers 8]

TEXTS is a folder of parquet files with the columns `id` (different in every row) and `text`; VECTORS gets the same and
`vector`. Spreading the work, writing and resuming are Ray's: rows whose id is in the checkpoint are not computed again.
On a cluster all four are on storage that every machine sees, and RAY_ADDRESS names the cluster.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from converter.runtime import EncodeBatches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package")
    parser.add_argument("texts")
    parser.add_argument("vectors")
    parser.add_argument("--checkpoint", required=True, help="where Ray notes what is done")
    parser.add_argument("--id", default="id", help="the column whose values are all different")
    parser.add_argument("--text", default="text", help="the column to encode")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=512, help="rows that a worker is given at once")
    parser.add_argument(
        "--block-mb",
        type=float,
        default=32,
        help="results are written, and so kept, in blocks of about this size",
    )
    given = parser.parse_args()
    if "RAY_ADDRESS" not in os.environ:  # a cluster of this machine
        # Reading and writing run beside the workers.
        ray.init(num_cpus=given.workers + 2)
    context = DataContext.get_current()
    context.target_max_block_size = int(given.block_mb * 2**20)
    context.target_min_block_size = min(context.target_min_block_size, context.target_max_block_size)
    context.checkpoint_config = CheckpointConfig(
        given.id, str(Path(given.checkpoint).resolve()), delete_checkpoint_on_success=False
    )
    ray.data.read_parquet(given.texts).map_batches(
        EncodeBatches,
        fn_constructor_args=(given.package,),
        fn_constructor_kwargs={"text": given.text, "precision": given.precision, "threads": 1},
        batch_size=given.batch_size,
        compute=ActorPoolStrategy(size=given.workers),
    ).write_parquet(given.vectors)


if __name__ == "__main__":
    main()
