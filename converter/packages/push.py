"""A package to the model hub: checked, listed, uploaded so that a broken upload goes on where it stopped."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from converter.errors import ConverterError, HubError, PackageError, UsageError
from converter.packages.package import PackageInfo, inspect_package
from converter.packages.staging import RECORD
from converter.request import SILENT, Progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")


@dataclass(frozen=True)
class Push:
    """What goes to the hub, or went: `files` maps paths to bytes.

    `left_out` are files of the folder that nobody recorded, which stay here; `left_there` are files of the
    repository that the package does not have, which stay there. `url` is empty until the upload is done.
    """

    repo: str
    private: bool
    revision: str | None
    files: Mapping[str, int]
    left_out: tuple[str, ...] = ()
    left_there: tuple[str, ...] = ()
    url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def push_package(
    package: Path,
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> Push:
    """Upload a package to the hub repository `repo`, made private unless `public`, on a branch `revision`.

    With `dry_run` only what would go is found out; the network is not touched. Raises PackageError for a package whose
    files are not what was recorded or that failed parity, UsageError for a repository's name that cannot be or that
    is public unasked, HubError for what the hub refuses or cannot do.
    """
    _check_name(repo)
    with progress.stage("check files"):
        plan = _plan(inspect_package(package), repo, public=public, revision=revision)
    if dry_run:
        return plan
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with progress.stage(f"open {repo}"):
        plan, there = _asked(repo, lambda: _open(api, plan))
    with progress.stage(f"upload {len(plan.files)} files"):
        url = _asked(repo, lambda: _upload(api, plan, package))
    left_there = tuple(sorted(there - set(plan.files) - {".gitattributes"}))
    return replace(plan, left_there=left_there, url=url)


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(
            f"{repo!r} is not a valid repository name: {error}", remedy="write NAMESPACE/NAME"
        ) from error


def _plan(info: PackageInfo, repo: str, *, public: bool, revision: str | None) -> Push:
    info.require_intact()
    parity = info.record.get("parity") or {}
    if parity.get("mode", "off") != "off" and not parity.get("passed"):
        raise PackageError(f"{info.folder} failed parity and is not published", remedy="convert again")
    absent = [name for name in info.edited if not (info.folder / name).is_file()]
    names = [name for name in (*info.files, RECORD) if name not in absent]
    files = {name: (info.folder / name).stat().st_size for name in sorted(names)}
    return Push(repo, not public, revision, files, left_out=info.extra)


def _open(api: HfApi, plan: Push) -> tuple[Push, set[str]]:
    """Make the repository and the branch where there is none. Returns its full name, and the files that are there."""
    made = api.create_repo(plan.repo, private=plan.private, exist_ok=True, repo_type="model")
    info = api.model_info(made.repo_id)
    if plan.private and not info.private:
        raise UsageError(
            f"{made.repo_id} exists and is public",
            remedy="pass --public if that is intended, or choose another name",
        )
    if plan.revision is not None:
        api.create_branch(made.repo_id, branch=plan.revision, exist_ok=True)
        info = api.model_info(made.repo_id, revision=plan.revision)
    return replace(plan, repo=made.repo_id), {entry.rfilename for entry in info.siblings or ()}


def _upload(api: HfApi, plan: Push, package: Path) -> str:
    """Upload what is planned; what an earlier run has uploaded is not sent again. Returns the address."""
    patterns = [glob.escape(name) for name in plan.files]
    large = getattr(
        api, "upload_large_folder", None
    )  # until huggingface_hub 2: since then upload_folder does it
    if large is not None:
        large(
            repo_id=plan.repo,
            folder_path=package,
            repo_type="model",
            revision=plan.revision,
            allow_patterns=patterns,
            print_report=False,
        )
    else:
        api.upload_folder(
            repo_id=plan.repo,
            folder_path=package,
            repo_type="model",
            revision=plan.revision,
            allow_patterns=patterns,
            commit_message="Upload ONNX package",
        )
    return f"{api.endpoint}/{plan.repo}" + (f"/tree/{plan.revision}" if plan.revision else "")


def _asked(repo: str, call: Callable[[], T]) -> T:
    """What the hub answers; its refusals and its silence become HubError."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    log_in = (
        "create a token with write access at https://huggingface.co/settings/tokens,"
        " then use --token or `hf auth login`"
    )
    try:
        return call()
    except ConverterError:
        raise
    except LocalTokenNotFoundError as error:
        raise HubError("the hub requires a token for uploads, and there is none", remedy=log_in) from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise HubError(
                f"the hub does not let this token write to {repo} ({code})", remedy=log_in
            ) from error
        said = error.server_message or str(error).splitlines()[0]
        raise HubError(f"the hub refuses {repo} ({code}): {said}", remedy=_AGAIN) from error
    except Exception as error:  # the client under huggingface_hub changes, and its errors share no base
        raise HubError(
            f"the upload to {repo} was interrupted ({type(error).__name__}: {error})", remedy=_AGAIN
        ) from error


_AGAIN = "run the same command again: what was uploaded is not sent twice"
