"""Downloads checkpoint directories from the Hugging Face Hub, and pushes them to it.

    folder = download("USER/NAME", revision="main")  # a branch, a tag or a commit
    url = push(folder, "USER/NAME", private=True)    # one commit

Access tokens are those of huggingface_hub: the variable HF_TOKEN or the login. They are sent in the
headers of its requests, and appear neither in messages nor in files.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.checkpoint.checkpoint_folder import (
    Checkpoint,
    CheckpointError,
    CheckpointUnreadable,
    check_no_file,
    find_faults,
    finish_swap,
    read_config,
    read_json,
    write_checkpoint,
)
from captioner.checkpoint.file_names import CARD, CONFIG, FILES, METRICS, foreign_files
from captioner.checkpoint.hub_access import HubError, require_login
from captioner.checkpoint.hub_errors import reason, was_refused, with_retries
from captioner.checkpoint.model_card import is_untouched, model_card
from captioner.files import system_fault

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

logger = logging.getLogger(__name__)

ATTEMPTS = 4
TIMEOUT = 10  # seconds until the first answer; by default, the client would wait forever


def find_checkpoint(checkpoint: str | os.PathLike, revision: str | None = None) -> Path:
    """The directory of a checkpoint: `checkpoint` itself, or the local copy of a Hub repository.

    Raises `CheckpointError` like `download`.
    """
    if not os.fspath(checkpoint):  # `Path` would take it for the current folder
        raise CheckpointError("Its name is empty. Give a directory, or USER/NAME on the Hub.")
    checkpoint = os.path.expanduser(checkpoint)
    try:
        finish_swap(Path(checkpoint))
        check_no_file(Path(checkpoint))
        is_folder = Path(checkpoint).is_dir()
    except OSError as error:  # a folder above it is closed to this user, or the name is too long
        if fault := system_fault(error, Path(checkpoint)):
            raise CheckpointUnreadable(fault) from error
        is_folder = False
    if is_folder:
        if revision is not None:
            raise CheckpointError(
                f"{checkpoint} is a folder on this computer, which has no revision {revision}. "
                "Leave the revision out, or give USER/NAME on the Hub."
            )
        return Path(checkpoint)
    return download(str(checkpoint), revision)


def download(repo_id: str, revision: str | None = None) -> Path:
    """Downloads a checkpoint from the Hub, unless the newest one is in the local cache.

    If the Hub cannot be asked for the newest one, the copy in the cache is used, with a note in the
    log. A file that is incomplete, or not the one that the checkpoint's configuration names, is
    downloaded again.

    Args:
        repo_id: USER/NAME.
        revision: A branch, tag or commit; None for the main branch.

    Returns:
        The directory of the local copy.

    Raises:
        CheckpointError: There is no local copy and it cannot be downloaded, the Hub refuses access,
            or the repository does not contain a whole checkpoint.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        cached = _cached(repo_id, revision)
    except HFValidationError:
        raise CheckpointError(
            f"{repo_id} is neither a checkpoint directory nor a Hub id of the form USER/NAME."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{repo_id} is not a directory here, and {reason(error, repo_id)}"
        ) from error
    if cached is not None and cached.name == revision:
        return cached  # a commit never changes
    try:
        folder = with_retries(lambda: _fetch(repo_id, revision), 1 if cached else ATTEMPTS)
    except CheckpointError:
        raise
    except Exception as error:
        why = reason(error, repo_id, revision)
        if cached is None or was_refused(error):
            if cached is not None:
                why += " HF_HUB_OFFLINE=1 uses the copy in the local cache."
            raise CheckpointError(
                f"{repo_id} is not a directory here, and could not be downloaded: {why}"
            ) from error
        logger.warning(
            "The copy of %s in the local cache is used (commit %s), which may be outdated: %s",
            repo_id,
            cached.name[:8],
            why,
        )
        return cached
    if folder != cached:
        _remember(repo_id, revision)
    return folder


def push(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    replace_card: bool = False,
) -> str:
    """Uploads a checkpoint to the Hub in one commit.

    Args:
        folder: The checkpoint directory.
        repo_id: The repository, USER/NAME. It is created if it does not exist.
        private: Whether a new repository is visible to you alone.
        revision: The branch; None for the main branch.
        token: The access token; None for that of the environment or of the login.
        replace_card: Whether to replace a model card that was edited on the Hub. Otherwise it is
            kept, with a note in the log.

    Returns:
        The URL of the commit.

    Raises:
        CheckpointError: The checkpoint is not whole.
        HubError: The checkpoint was not pushed; the message says why.
    """
    files = _whole(Path(folder))
    require_login(token)
    try:
        return with_retries(
            lambda: _commit(files, repo_id, private, revision, token, replace_card), ATTEMPTS
        )
    except HubError:
        raise
    except Exception as error:
        why = reason(error, repo_id, revision, writing=True, token=token)
        raise HubError(f"{folder} was not pushed to {repo_id}: {why}") from error


def save_checkpoint(checkpoint: Checkpoint, folder: Path, copy_of: Path | None = None) -> Path:
    """Writes `checkpoint` into `folder`, all or nothing, and returns `folder`.

    Args:
        checkpoint: What to write.
        folder: A new directory, or that of a checkpoint, which is replaced.
        copy_of: The directory that the checkpoint was read from. Its model card, scores and
            pictures are copied. With None, the new model card says that there are no scores.

    Raises:
        CheckpointError: `folder` contains files that do not belong to a checkpoint, and that would
            be deleted.
    """
    if foreign := foreign_files(folder):
        raise CheckpointError(
            f"{folder} holds other files ({', '.join(foreign)}), so no checkpoint was written "
            "there. Give a new directory."
        )
    if copy_of is None:
        card = model_card(checkpoint.config, {}).encode()
        write_checkpoint(folder, checkpoint, {}, {CARD: card})
    elif folder.resolve() != copy_of.resolve():
        files = _whole(copy_of)
        extra = {n: p.read_bytes() for n, p in files.items() if n == CARD or n.endswith(".png")}
        write_checkpoint(folder, checkpoint, read_json(files[METRICS]), extra)
    return folder


def _cached(repo_id: str, revision: str | None) -> Path | None:
    """The checkpoint that the local cache has as `revision`, if it is there and whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=list(FILES), local_files_only=True
            )
        )
        return None if any(_faulty(folder)) else folder
    except LocalEntryNotFoundError:
        return None


def _fetch(repo_id: str, revision: str | None) -> Path:
    """Downloads what the Hub has as `revision` now. In the cache, `revision` still stands for the
    same commit as before."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    commit = HfApi().repo_info(repo_id, revision=revision, timeout=TIMEOUT).sha
    folder = Path(snapshot_download(repo_id, revision=commit, allow_patterns=list(FILES)))
    for name in _faulty(folder):
        if (folder / name).exists():
            logger.warning("%s is damaged, so it is downloaded again.", folder / name)
        hf_hub_download(repo_id, name, revision=commit, force_download=True)
    read_config(folder)
    for name in _faulty(folder):
        raise CheckpointError(
            f"{name} in the repository {repo_id} is not the file that its {CONFIG} names. Ask the "
            "repository's owner to push the checkpoint again, or give another revision."
        )
    return folder


def _remember(repo_id: str, revision: str | None) -> None:
    # snapshot_download records the branch's commit in the cache before it downloads the files. It
    # is called only now that all files are there, so that no branch stands for half a checkpoint.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES))
    except (HTTPError, OSError) as error:
        logger.info("the local cache keeps its previous commit (%s)", type(error).__name__)


def _faulty(folder: Path) -> Iterator[str]:
    """Yields the names of files that are missing, damaged or from another checkpoint.

    Raises `CheckpointUnreadable` if the system does not let the program read a file.
    """
    try:
        _, files = read_config(folder)
    except CheckpointUnreadable:
        raise
    except CheckpointError:
        yield CONFIG
        return
    for name, _ in find_faults(folder, files):
        yield name


def _whole(folder: Path) -> dict[str, Path]:
    """The files to push, by name. Raises `CheckpointError` if one is missing or damaged."""
    read_config(folder)
    for name in _faulty(folder):
        raise CheckpointError(
            f"{folder / name} is missing, or not the file that {CONFIG} names. Nothing was pushed; "
            "train or fetch the checkpoint again."
        )
    for name in (METRICS, CARD):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name} is missing. Nothing was pushed; run `python -m "
                "captioner.evaluation` with --save, or train again."
            )
    pictures = sorted(path.name for path in folder.glob("*.png"))
    names = [name for name in dict.fromkeys([*FILES, *pictures]) if (folder / name).is_file()]
    return {name: folder / name for name in names}


def _commit(
    files: dict[str, Path],
    repo_id: str,
    private: bool,
    revision: str | None,
    token: str | None,
    replace_card: bool,
) -> str:
    # This can be repeated: what an earlier attempt has uploaded is found on the Hub and left out.
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
    info = api.model_info(repo_id, revision=revision, timeout=TIMEOUT)
    if private and not info.private:
        raise HubError(
            f"{repo_id} exists and is public, so nothing was pushed there. Make it private in its "
            "settings on the Hub, or push without `private`."
        )
    present = {sibling.rfilename for sibling in info.siblings or ()}
    if CARD in present and not replace_card:
        files = _without_foreign_card(api, files, repo_id, info.sha)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, path) for name, path in files.items()
    ]
    stale = present & set(FILES) - set(files) - {CARD}
    operations += [CommitOperationDelete(name) for name in sorted(stale)]
    return api.create_commit(
        repo_id,
        operations,
        commit_message="Captioner checkpoint",
        revision=revision,
        parent_commit=info.sha,  # refused if the branch was changed meanwhile, perhaps its card
    ).commit_url


def _without_foreign_card(
    api: HfApi, files: dict[str, Path], repo_id: str, commit: str | None
) -> dict[str, Path]:
    """`files` without the model card, if a person has written or edited the one in `commit`."""
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, CARD, revision=commit, local_dir=folder)
        content = Path(path).read_bytes()
    if content == files[CARD].read_bytes() or is_untouched(content.decode(errors="replace")):
        return files
    logger.warning(
        "The model card of %s was edited on the Hub and stays as it is; everything else is pushed. "
        "`replace_card=True` replaces it.",
        repo_id,
    )
    return {name: path for name, path in files.items() if name != CARD}
