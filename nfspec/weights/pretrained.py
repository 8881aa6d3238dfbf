"""Files of weights by name: published ones, those of a repository of a hub, and those at a URL.

What was fetched once is kept: that of a hub in huggingface_hub's own cache, whose variables
(HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN) hold here, too; that of a URL in the user's cache
folder, `~/.cache/nfspec` or that of XDG_CACHE_HOME.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.errors import BackendError, InputError, WeightError, suggest
from nfspec.files import cache_folder
from nfspec.language.loader import load
from nfspec.language.spec import Spec
from nfspec.outputs import alone
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.weights.kinds import SUFFIXES, kind_of_file, read_fitting
from nfspec.weights.published import PUBLISHED
from nfspec.wording import printable, reason_of

HUB = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
URL = re.compile(r"https?:/+(.+)")  # a Path has one slash where a URL has two
DIGEST = re.compile(r"-([0-9a-f]{8,64})$")  # in a file's name, as PyTorch's hub has it
SHA256 = re.compile(r"[0-9a-f]{64}")
FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository, the first that is there
COMMAND = "pip install huggingface_hub"
BLOCK = 2**20
TIMEOUT = 30.0  # seconds without an answer

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Pretrained:
    """A network with the weights that somebody trained.

    Attributes:
        spec: The network.
        params: Canonical name to float32 array.
        path: The file that they are from.
        changes: A sentence for each change that was needed to make them fit.
    """

    spec: Spec
    params: Params
    path: Path
    changes: tuple[str, ...]


def pretrained(
    name: str, spec: Spec | None = None, *, progress: Progress = lambda message: None
) -> Pretrained:
    """Fetch weights by name, and read them.

    Args:
        name: A name that `nfspec list --pretrained` prints, such as `timm/dm_nfnet_f0.dm_in1k` or
            `deepmind/nfnet-f0`; `hf-hub:owner/name`, with `@revision` or without; a URL; or the
            path of a file.
        spec: The network that they are for. If None, the one that they were published for. Weights
            of another number of classes or input channels are made to fit.
        progress: A function that is called with a line before something is fetched.

    Raises:
        InputError: There is no such name, or it does not say of which network it is.
        WeightError: They cannot be fetched, are damaged, or do not fit.
        BackendError: huggingface_hub is needed and not installed.
    """
    if spec is None:
        if name not in PUBLISHED:
            raise InputError(
                f"{printable(name)}: not a name that says of which network it is; give the spec, "
                f"too, or a name that nfspec list --pretrained prints{suggest(name, PUBLISHED)}"
            )
        spec = load(PUBLISHED[name].variant)
    path = weights_file(name, progress)
    fitted = read_fitting(path, resolve(spec), kind_of_file(path))
    return Pretrained(spec, fitted.params, path, tuple(fitted.changes))


def weights_file(name: str | Path, progress: Progress = lambda message: None) -> Path:
    """The file of a name of weights, fetched if it is not there yet.

    Args:
        name: As `pretrained` takes it; the path of a file comes first.
        progress: A function that is called with a line before something is fetched.

    Raises:
        InputError: The name is none of these.
        WeightError: It cannot be fetched, or is damaged.
        BackendError: huggingface_hub is needed and not installed.
    """
    path, text = Path(name), str(name)
    if path.exists():
        return path
    if text in PUBLISHED:
        text = PUBLISHED[text].where
    if text.startswith("hf-hub:"):
        match = HUB.fullmatch(text)
        if not match or ".." in text:
            raise InputError(
                f"{printable(text)}: expected hf-hub:owner/name or hf-hub:owner/name@revision"
            )
        return _from_hub(match[1], match[2], progress)
    if match := URL.fullmatch(text):
        return _from_url(f"{text.partition(':')[0]}://{match[1]}", progress)
    near = suggest(text, PUBLISHED)
    if near and path.suffix.lower() not in {s for each in SUFFIXES.values() for s in each}:
        raise InputError(
            f"{printable(text)}: no such file, and no name of weights that "
            f"nfspec list --pretrained prints{near}"
        )
    return path  # whoever opens it says that it is not there


def _from_hub(repository: str, revision: str | None, progress: Progress) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise BackendError(
            f"hf-hub:{repository}: huggingface_hub is not installed; run: {COMMAND}"
        ) from None
    shown = f"hf-hub:{repository}" + (f"@{revision}" if revision else "")
    absent: Exception | None = None
    for name in FILES:
        try:
            found = hub.hf_hub_download(repository, name, revision=revision, dry_run=True)
            if found.will_download:
                progress(f"fetching {shown}, {name}, {found.file_size / 1e6:,.1f} MB ...")
            return _checked(Path(hub.hf_hub_download(repository, name, revision=revision)), shown)
        except errors.EntryNotFoundError as error:
            absent = error
        except errors.GatedRepoError:
            raise WeightError(
                f"{shown}: its owner gives access on request; ask on the hub, and set HF_TOKEN"
            ) from None
        except errors.RepositoryNotFoundError:
            near = suggest(f"timm/{repository.partition('/')[2]}", PUBLISHED)
            raise WeightError(f"{shown}: the hub has no such repository{near}") from None
        except errors.RevisionNotFoundError:
            raise WeightError(f"{shown}: the repository has no such revision") from None
        except WeightError:
            raise
        except Exception as error:  # huggingface_hub's own, its HTTP client's, the system's
            raise WeightError(f"{shown}: cannot be fetched ({_reason(error)})") from None
    if isinstance(absent, errors.LocalEntryNotFoundError):
        raise WeightError(
            f"{shown}: is not in the cache, and the hub cannot be reached; look at the connection, "
            "and at HF_HUB_OFFLINE and HF_ENDPOINT"
        ) from None
    raise WeightError(f"{shown}: the repository has none of {', '.join(FILES)}") from None


def _checked(path: Path, shown: str) -> Path:
    """A file of the hub's cache, whose true name is its sha256 where the hub states one.

    Raises:
        WeightError: The file is damaged; it is deleted.
    """
    blob = path.resolve()
    if SHA256.fullmatch(blob.name) and _sha256(blob) != blob.name:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise WeightError(
            f"{shown}: the file that came is damaged, as its sha256 is not the one that the hub "
            "states; it was deleted. Run the command again"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_url(url: str, progress: Progress) -> Path:
    """A file at a URL, in a folder of its own in the user's cache.

    Raises:
        InputError: The URL does not end in the name of a file of weights.
        WeightError: It cannot be fetched, or is damaged.
    """
    name = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2])
    known = sorted({suffix for each in SUFFIXES.values() for suffix in each})
    if Path(name).suffix not in known:
        raise InputError(f"{printable(url)}: expected a URL that ends in {', '.join(known)}")
    folder = cache_folder("weights") / hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / name
    if path.is_file():
        return path
    try:
        with alone(folder):
            part = folder / f"{name}.part"
            _fetch(url, part, progress)
            wanted = DIGEST.search(path.stem)
            if wanted and not _sha256(part).startswith(wanted[1]):
                part.unlink()
                raise WeightError(
                    f"{url}: the file that came is damaged, as its sha256 does not begin with "
                    f"{wanted[1]}, which its name states; it was deleted. Run the command again"
                )
            part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise WeightError(f"{url}: cannot be fetched ({_reason(error)})") from None
    return path


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Fetch the rest of a file.

    Raises:
        OSError: The server refuses, or cannot be reached.
        WeightError: The connection ended before the file did.
    """
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "nfspec", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the rest is empty, or not of this file
            raise
        part.unlink()
        _fetch(url, part, progress)
        return
    with answer:
        goes_on = answer.status == 206
        length = answer.headers.get("Content-Length")
        start = have if goes_on else 0
        whole = start + int(length) if length and length.isdigit() else None
        size = f", {whole / 1e6:,.1f} MB" if whole else ""
        progress(f"fetching {url}{size}{' (the rest of it)' if start else ''} ...")
        with part.open("ab" if goes_on else "wb") as file:
            _copy(answer, file, whole, start, progress)
    got = part.stat().st_size
    if whole is not None and got != whole:
        raise WeightError(
            f"{url}: the connection ended after {got:,} of {whole:,} bytes; run the command again "
            "to go on from there"
        )


def _copy(answer: Any, file: Any, whole: int | None, done: int, progress: Progress) -> None:
    """Copy what comes, with a line for each tenth of it."""
    told = 10 * done // whole if whole else 0
    while block := answer.read(BLOCK):
        file.write(block)
        done += len(block)
        if whole and 10 * done // whole > told and done < whole:
            told = 10 * done // whole
            progress(f"{10 * told} % ...")


def _reason(error: Exception) -> str:
    """The reason of an error of the system or of a connection, which wraps others."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    return str(inner or getattr(error, "strerror", None) or reason_of(error))
