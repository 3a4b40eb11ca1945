"""Checkpoint directories from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from captioner.checkpoint import CheckpointError


def download(repo_id: str, revision: str | None = None) -> Path:
    """The local copy of the checkpoint USER/NAME at `revision`.

    Raises `CheckpointError` if there is none and it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "*.safetensors", "*.png", "README.md"]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except HFValidationError:
        raise CheckpointError(
            f"{repo_id} is neither a checkpoint directory nor a Hub id of the form USER/NAME."
        ) from None
    except Exception as error:  # the client lets those of its HTTP library through
        raise CheckpointError(
            f"the checkpoint {repo_id} is no local directory and could not be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Check the name and the "
            "network."
        ) from error
