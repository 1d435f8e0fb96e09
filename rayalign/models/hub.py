"""Uploading a folder to the hub. The token is the hub client's affair: HF_TOKEN, or what its login stored."""

from __future__ import annotations

from pathlib import Path

from rayalign.errors import ConfigError, RayalignError


def push_folder(folder: Path, repository: str, private: bool = False) -> str:
    """Makes the model repository "owner/name" where it is not there, uploads all of `folder`, answers its address.

    Raises ConfigError for a name that is none, RayalignError with the hub's own words if it refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError("--push", repository, f"is no repository's name ({error}); set OWNER/NAME") from error
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload what rayalign tuned")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise RayalignError(f"the hub refused {repository}: {error}. Log in, or set HF_TOKEN") from error
    return str(done)
