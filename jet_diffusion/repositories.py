"""Repositories on the Hub: fetch them, ask beforehand whether one may write there, push folders to them.

The Hub's client repeats most of its calls with growing waits. Here the others are repeated too, no call waits for ever,
and what the Hub refuses is said in one line with what to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import HfApi, get_session, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
Kind = Literal["model", "dataset", "space"]

TRIES = 3
"""How often a call is made that may succeed later; the Hub's client makes most requests of it up to six times."""

LONGEST_WAIT = 300
"""Seconds between two tries at most, whatever the Hub asks for: its limits are of five minutes."""

SILENCE = 30.0
"""Seconds that a server may say nothing; the Hub's client would wait for ever."""

PASSING = (408, 409, 412, 429, 500, 502, 503, 504)
"""Answers that a later try may not get; 409 and 412: somebody else pushed in between."""

HTTP_ERRORS: Any = (OSError, *HfHubHTTPError.__bases__)
"""What the Hub's client raises when it cannot connect or is refused: errors of its HTTP library."""

WRAPPED = (RuntimeError, ValueError)
"""What it raises in their place while it uploads large files."""


def fetch(repo: str, kind: Kind, files: Sequence[str], revision: str | None = None) -> Path:
    """The folder in the cache of a repository's files, brought up to date if the Hub lets us.

    If it does not, the copy in the cache is taken, and a warning says why.

    Args:
        repo: `user/name`.
        kind: Of the repository.
        files: Patterns of the files to download.
        revision: Branch, tag or commit.

    Raises:
        FileNotFoundError: There is no such repository or revision.
        PermissionError: The Hub refuses access, and the cache has no copy.
        ConnectionError: The Hub cannot be reached or has an error, and the cache has no copy.
    """
    return ask(
        lambda: _download(repo, repo_type=kind, revision=revision, allow_patterns=list(files)),
        repo,
        kind,
        f"there is no folder {repo}; {{}}; the cache has no copy of it either",
        revision,
    )


def ask(call: Callable[[], T], repo: str, kind: Kind, failed: str, revision: str | None = None) -> T:
    """Call the Hub's client, again if the Hub refuses for a reason that passes.

    Args:
        call: Reads from a repository.
        repo: `user/name`.
        kind: Of the repository.
        failed: What did not work; `{}` stands for the reason.
        revision: Branch, tag or commit that is asked for.

    Raises:
        FileNotFoundError: There is no such repository or revision.
        PermissionError: The Hub refuses access.
        ConnectionError: The Hub cannot be reached or has an error.
    """
    try:
        return _persist(call)
    except HFValidationError as error:
        raise FileNotFoundError(f"{repo} is neither a folder nor the name of a {kind} on the Hub, user/name") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the repository {repo} has no revision {revision or 'main'}") from error
    except GatedRepoError as error:
        raise PermissionError(_reason(error, repo)) from error
    except RepositoryNotFoundError as error:
        found = f"but a {other} of that name is" if (other := _other_kind(repo, kind)) else "log in for a private one"
        raise FileNotFoundError(f"{repo} is neither a folder nor a {kind} on the Hub; {found}") from error
    except HTTP_ERRORS as error:
        if not _is_http(_cause(error)):
            raise
        raise _refusal(error, failed.format(_reason(error, repo))) from error


def _download(repo: str, **wanted: Any) -> Path:
    """The folder in the cache of a repository's files; the error of the Hub's client, if that has no copy either.

    Args:
        repo: `user/name`.
        **wanted: Kind, revision and patterns of files, as `snapshot_download` names them.
    """
    try:
        # Unlike the download, it says why it cannot.
        HfApi().repo_info(repo, repo_type=wanted["repo_type"], revision=wanted["revision"], timeout=SILENCE)
        return Path(snapshot_download(repo, **wanted))
    except RevisionNotFoundError:
        raise
    except HTTP_ERRORS as error:
        if not _is_http(_cause(error)):
            raise
        with suppress(LocalEntryNotFoundError):
            copy = Path(snapshot_download(repo, **wanted, local_files_only=True))
            logger.warning("%s; taking the copy of %s in the cache", _reason(error, repo), repo)
            return copy
        raise


def require_writable(repo: str, kind: Kind, otherwise: str) -> None:
    """Ask the Hub, before long work, whether its result may be pushed.

    Args:
        repo: `user/name`.
        kind: Of the repository, which need not exist.
        otherwise: What to do without the Hub; ends the message.

    Raises:
        PermissionError: There is no token, the Hub does not know it, or it may not write there.
        ConnectionError: The Hub cannot be asked.
    """
    if get_token() is None:
        raise PermissionError(f"pushing to {repo} needs a token: log in with `hf auth login`, or set HF_TOKEN")
    try:
        user: dict[str, Any] = _persist(HfApi().whoami)
        wrong = _may_not_write(user, repo)
        if wrong:
            raise PermissionError(f"{wrong}; make another at https://huggingface.co/settings/tokens")
        if other := _other_kind(repo, kind):
            logger.warning("%s is a %s on the Hub; a %s of the same name is put beside it", repo, other, kind)
    except PermissionError:
        raise
    except HTTP_ERRORS as error:
        raise _refusal(error, f"{_reason(error, repo)}; {otherwise}") from error


def push_folder(
    folder: Path,
    repo: str,
    kind: Kind,
    message: str,
    *,
    private: bool = False,
    allow_patterns: list[str] | None = None,
    delete_patterns: str | None = None,
) -> str:
    """Upload a folder in one commit; the token is the environment's or the one `hf auth login` stored.

    Args:
        folder: Stays as it is.
        repo: `user/name`; made if it does not exist.
        kind: Of the repository.
        message: Of the commit.
        private: Whether a repository made now is private.
        allow_patterns: Of the files to upload; all of them if you omit it.
        delete_patterns: Of files of earlier commits to delete.

    Returns:
        The repository's address.

    Raises:
        PermissionError: The token may not write there.
        ConnectionError: The Hub cannot be reached or has an error, also after some tries.
    """
    hub = HfApi()
    sdk = "gradio" if kind == "space" else None
    try:
        address = _persist(lambda: hub.create_repo(repo, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk))
        _persist(
            lambda: hub.upload_folder(
                repo_id=repo,
                folder_path=folder,
                repo_type=kind,
                commit_message=message,
                allow_patterns=allow_patterns,
                delete_patterns=delete_patterns,
            )
        )
    except (*HTTP_ERRORS, *WRAPPED) as error:
        if not _is_http(cause := _cause(error)):
            raise
        raise _refusal(cause, f"{_reason(cause, repo)}; {folder} stays, and the same command pushes it") from error
    return str(address)


def _persist(call: Callable[[], T]) -> T:
    """Call up to TRIES times, as long as the Hub refuses for a reason that passes."""
    for left in reversed(range(TRIES)):
        try:
            get_session().timeout = SILENCE  # each time: a lost connection makes a new session
            return call()
        except (*HTTP_ERRORS, *WRAPPED) as error:
            cause = _cause(error)
            if not left or not _passes(cause):
                raise
            wait = _wait(cause) or 2.0 ** (TRIES - 1 - left)
            logger.warning("%s; trying again in %.0f s", _reason(cause), wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _cause(error: Exception) -> Exception:
    """The Hub's answer, or the lost connection, behind an error."""
    inner: BaseException | None = error
    while inner is not None and not _is_http(inner):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, Exception) else error


def _is_http(error: BaseException) -> bool:
    """Whether an error is the HTTP library's or of the connection, rather than of a local file."""
    if isinstance(error, LocalEntryNotFoundError):
        return False
    if type(error).__module__ == "builtins":
        return isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, HTTP_ERRORS)


def _passes(error: Exception) -> bool:
    """Whether a later try may succeed."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in PASSING
    return _is_http(cause) and not isinstance(cause, OfflineModeIsEnabled)


def _wait(error: Exception) -> float:
    """Seconds that the Hub asks to wait; 0 if it does not."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0


def _reason(error: Exception, repo: str = "the repository") -> str:
    """What the Hub said and what to do about it."""
    cause = _cause(error)
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked"
    if not isinstance(cause, HfHubHTTPError):
        return f"the Hub cannot be reached ({type(cause).__name__}); try again later"
    if isinstance(cause, GatedRepoError):
        return f"{repo} is gated: ask for access on its page, then log in with `hf auth login`"
    status = cause.response.status_code
    busy = f"somebody else is changing {repo} (HTTP {status}); try again later"
    wait = f"{_wait(cause):.0f} s " if _wait(cause) else ""
    reasons = {
        401: "the Hub does not accept the token (HTTP 401): log in with `hf auth login`, or correct HF_TOKEN",
        403: f"the Hub refuses access to {repo} (HTTP 403): take a token that has the right",
        404: f"the Hub does not find {repo} (HTTP 404): it was deleted, or the token may not see it",
        409: busy,
        412: busy,
        429: f"the Hub asks you to wait {wait}before you ask again (HTTP 429)",
    }
    return reasons.get(status, f"the Hub has an error (HTTP {status}); try again later")


def _refusal(error: Exception, text: str) -> OSError:
    """The error to raise: access is PermissionError, what is not there FileNotFoundError, else ConnectionError."""
    cause = _cause(error)
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
    kinds: dict[int, type[OSError]] = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}
    return kinds.get(status, ConnectionError)(text)


def _may_not_write(user: dict[str, Any], repo: str) -> str | None:
    """Why a token may not write to a repository, by what the Hub says of it; None if nothing speaks against it.

    Args:
        user: The Hub's answer to who owns the token.
        repo: `user/name`.
    """
    owner = repo.partition("/")[0]
    owners = [user["name"], *(group["name"] for group in user.get("orgs", []))]
    if owner.lower() not in map(str.lower, owners):
        return f"the token is of {user['name']}, who may write to {', '.join(owners)}, not to {owner}"
    token = (user.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        return f"the token may only read, and pushing to {repo} writes"
    if token.get("role") == "fineGrained":
        scopes = (token.get("fineGrained") or {}).get("scoped", [])
        here = [scope for scope in scopes if (scope.get("entity") or {}).get("name") in (owner, repo)]
        if not any("repo.write" in scope.get("permissions", []) for scope in here):
            return f"the token has no right to write to repositories of {owner}"
    return None


def _other_kind(repo: str, kind: Kind) -> Kind | None:
    """The other kind, if a repository of this name is of that one alone."""
    other: Kind = "dataset" if kind == "model" else "model"
    hub = HfApi()
    try:
        return other if not hub.repo_exists(repo, repo_type=kind) and hub.repo_exists(repo, repo_type=other) else None
    except HTTP_ERRORS:  # it is a hint alone
        return None
