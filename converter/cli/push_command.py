"""The command `push`: a package to the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli.options import FOLDER, OUTPUT, options
from converter.console import quiet_libraries, show_progress, write_line, write_table
from converter.text import size_text

if TYPE_CHECKING:
    from converter.packages.push import Push


@click.command("push", short_help="Upload a package to the model hub.")
@click.argument("package", type=FOLDER)
@click.argument("repo")
@click.option("--public", is_flag=True, help="Make the repository public. [default: private]")
@click.option("--revision", help="Branch to upload to, created if missing. [default: main]")
@click.option("--token", help="Access token for the hub. [default: from `hf auth login`]")
@click.option("--dry-run", is_flag=True, help="List what would be uploaded; uses no network.")
@options(*OUTPUT)
def push_command(
    package: Path,
    repo: str,
    public: bool,
    revision: str | None,
    token: str | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Upload a package to the model hub, as NAMESPACE/NAME. An interrupted upload resumes when run again."""
    from converter.cli.display import write_json

    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.packages.push import push_package

        push = push_package(
            package, repo, public=public, revision=revision, token=token, dry_run=dry_run, progress=progress
        )
    if as_json:
        write_json(push.to_json())
    elif not quiet:
        _show_push(push)


def _show_push(push: Push) -> None:
    """The files with their sizes, what stays on either side, and where it is now."""
    write_table(
        ("file", "size"), [(name, size_text(size)) for name, size in push.files.items()], right=("size",)
    )
    for name in push.left_out:
        write_line(f"not recorded, stays here: {name}")
    for name in push.left_there:
        write_line(f"not of this package, stays in {push.repo}: {name}")
    what = f"{len(push.files)} files, {size_text(sum(push.files.values()))}"
    if push.url:
        write_line(f"pushed {what} to {push.url}")
    else:
        branch = f", branch {push.revision}" if push.revision else ""
        kind = "private" if push.private else "public"
        write_line(f"would push {what} to {push.repo} ({kind}{branch}); nothing was sent")
