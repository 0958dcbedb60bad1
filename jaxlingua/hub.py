"""A folder on this machine or a snapshot from the Hugging Face hub, and in one line why there is neither."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from jaxlingua.errors import JaxlinguaError, MachineError


def find_folder(path: str, patterns: Sequence[str], where: str, error: type[JaxlinguaError]) -> Path:
    """The folder that `path` names: a local one as it is, or the files of a hub repository, downloaded.

    A download shows its progress, and goes on where an interrupted one stopped.

    Args:
        patterns: the files of a repository that are wanted, such as "*.safetensors".
        where: the option that `path` was given for.
        error: raised where there is no such folder and no such repository, or it may not be read.
    Raises: MachineError where the hub cannot be reached or the disk is full.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    with _told(path, where, error):
        return Path(snapshot_download(path, allow_patterns=list(patterns)))


def bytes_to_download(path: str, patterns: Sequence[str], where: str, error: type[JaxlinguaError]) -> int:
    """What `find_folder` would download; the hub is asked, and nothing is downloaded.

    Raises: as `find_folder`.
    """
    if Path(path).expanduser().is_dir():
        return 0
    with _told(path, where, error):
        try:
            files = snapshot_download(path, allow_patterns=list(patterns), dry_run=True)
        except DryRunError as unanswered:
            raise (unanswered.__cause__ or unanswered) from None
    return sum(file.file_size for file in files if file.will_download)


@contextmanager
def _told(path: str, where: str, error: type[JaxlinguaError]) -> Iterator[None]:
    """What the hub says, in one line."""
    local = Path(path).expanduser()
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1 or local.parent.is_dir():
        raise error(f"{where}: '{path}' does not exist; give a folder or a hub name like 'owner/model'")
    given = f"{where}: '{path}' is no folder here, and"
    page = f"{constants.ENDPOINT}/{path}"
    try:
        yield
    except GatedRepoError:
        raise error(
            f"{given} is gated on the hub; accept its terms at {page}, log in with 'hf auth login' or set "
            f"HF_TOKEN, and run this again"
        ) from None
    except DisabledRepoError:
        raise error(f"{given} its authors or the hub disabled it; choose another") from None
    except RepositoryNotFoundError:
        raise error(
            f"{given} the hub has no such repository, or a private one; check the name, and log in with "
            f"'hf auth login' if it is private"
        ) from None
    except HFValidationError:
        raise error(f"{given} it is no name of a repository; give one like 'owner/model'") from None
    except Exception as cause:  # offline mode, no route, a proxy, a time-out: a dozen types
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"{given} the disk of {constants.HF_HUB_CACHE} is full; free some space or set HF_HOME; what "
                f"was downloaded is kept"
            ) from None
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code < 500:
            raise error(f"{given} the hub refuses it ({cause.response.status_code}); see {page}") from None
        offline = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else type(cause).__name__
        raise MachineError(
            f"{given} it is not in the cache, and the hub cannot be reached ({offline}); download it where "
            f"there is a network, and give its folder"
        ) from None
