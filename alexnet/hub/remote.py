"""To the Hub and back, through huggingface_hub; its errors as one sentence with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet.errors import RunError, UserError
from alexnet.hub.repository import FILES, WEIGHTS

PREFIX = "hf:"
"""What a checkpoint's name begins with that is to be fetched: hf:USER/NAME, or hf:USER/NAME@REVISION."""

NEEDS_HUB = "the Hugging Face Hub needs the library huggingface_hub: pip install 'alexnet[hub]'"


def require_hub() -> Any:
    """The library huggingface_hub. Raises UserError, naming the extra, where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(NEEDS_HUB) from None
    return huggingface_hub


def check_name(repo_id: str) -> None:
    """Raises UserError for what cannot be the name of a repository."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise UserError(f"{repo_id!r} is no name of a repository; those are USER/NAME, as in ada/alexnet-photos")


def fetch_checkpoint(name: str) -> Path:
    """The weights of hf:USER/NAME[@REVISION], fetched into huggingface_hub's cache where they are not there yet.

    Raises UserError for a name that is none, for what is not there, and without a network where it is not in the cache.
    """
    repo_id, _, revision = name.replace("\\", "/").removeprefix(PREFIX).partition("@")
    check_name(repo_id)
    return _download(repo_id, revision=revision or None)


def fetch_weights(name_or_folder: str, **options: Any) -> Path:
    """model.safetensors of a folder, or of a repository of the Hub. options: as of `hf_hub_download`."""
    folder = Path(name_or_folder)
    return folder / WEIGHTS if folder.is_dir() else _download(name_or_folder, **options)


def _download(repo_id: str, **options: Any) -> Path:
    hub = require_hub()
    with hub_errors(repo_id):
        return Path(hub.hf_hub_download(repo_id, WEIGHTS, **options))


def upload(folder: Path, repo_id: str, *, private: bool, branch: str | None, message: str) -> str:
    """Upload a folder's three files (`FILES`) to a repository, which is made where it is not there.

    Returns the commit's address. Whatever else is in the folder stays where it is.
    """
    hub = require_hub()
    with hub_errors(repo_id, writing=True):
        api = hub.HfApi()
        repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, revision=branch, allow_patterns=list(FILES)
        )
    return str(commit.commit_url)


@contextmanager
def hub_errors(name: str, *, writing: bool = False) -> Iterator[None]:
    """Tell what huggingface_hub raises about a repository in a sentence of ours, as UserError or RunError."""
    require_hub()
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError:
        raise UserError(
            f"{name!r} is neither a folder nor the name of a repository; those are USER/NAME, as in ada/alexnet-photos"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no such revision; give a branch, a tag or a commit that is there") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"there is no repository {name} on the Hub, or it is not for you to see; look for a typing error, or log "
            "in with `hf auth login`"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise UserError(f"{name} has no {WEIGHTS}: it was not written by this package") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        if writing:
            raise UserError(f"nothing was uploaded to {name}: {why}") from None
        raise UserError(
            f"{name} is not in the cache, and {why}; give the path of a folder that holds its files, or try again "
            "with a network"
        ) from None
    except errors.LocalTokenNotFoundError:
        raise UserError("nobody is logged in to the Hub; `hf auth login` does that") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            what, may = ("write to", "write") if writing else ("read", "read it")
            raise UserError(
                f"the Hub does not let you {what} {name} ({status}); log in with `hf auth login`, with a token that "
                f"may {may}"
            ) from None
        raise RunError(f"the Hub answered {status} for {name}: {str(error).splitlines()[0]}") from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise RunError(f"the Hub cannot be reached for {name} ({type(error).__name__}); try again later") from None
