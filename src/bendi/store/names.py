"""Names of models: text to a frozen value and back.

    hf:org/repo[:QUANT | /file.gguf][@revision]      the hub (or the mirror in HF_ENDPOINT)
    ms:org/repo[:QUANT | /file.gguf][@revision]      ModelScope
    ollama:[host/][namespace/]name[:tag]             the Ollama registry
    https://host/path/file.gguf[#sha256=...]         a plain URL; URLs of the hub's pages become `hf:` names
    ./file.gguf  /folder/file.gguf  ~/file.gguf      a path
    name[:tag][:QUANT]                               an alias of the catalogue, or one's own

Everything that may become part of a path is checked here with one rule (`is_safe_component`), whoever it came from:
no `..`, no separators, no control or direction characters, nothing that Windows reserves, so that a store can be
moved to any disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from bendi.errors import UsageError
from bendi.i18n import _

MAX_TEXT = 2048
MAX_COMPONENT_BYTES = 220  # file systems allow 255; `.part.json` and a temporary suffix must still fit

_FORBIDDEN = re.compile(
    '[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]'
)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_ORG_OR_REPO = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")
_QUANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,38}[A-Za-z0-9])?")
_TAG = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?")
_ALIAS = re.compile(r"\w(?:[\w.+-]{0,62}[\w+])?(?::\w(?:[\w.+-]{0,62}[\w+])?)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")

DEFAULT_REVISION = {"hf": "main", "ms": "master"}

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_MODELSCOPE_HOSTS = ("modelscope.cn", "www.modelscope.cn")
_PREFIXES = ("hf", "ms", "ollama", "https", "http")


@dataclass(frozen=True)
class RepoName:
    """A repository of the hub (`source` "hf") or of ModelScope ("ms").

    At most one of `quant` (upper case) and `file` (a path inside the repository) is set; neither: bendi chooses.
    `revision`: branch, tag or commit; None: the default branch.
    """

    source: Literal["hf", "ms"]
    org: str
    repo: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class OllamaName:
    """A model of an Ollama registry. `host` None: the registry of the settings."""

    name: str
    tag: str = "latest"
    namespace: str = "library"
    host: str | None = None


@dataclass(frozen=True)
class UrlName:
    """A GGUF file at a URL. `sha256`: what its bytes must hash to, when the user knows it."""

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class PathName:
    """A file or folder of this machine; `~` is already expanded."""

    path: Path


@dataclass(frozen=True)
class AliasName:
    """A short name, lower case, to be looked up in the catalogue; `quant` overrides the catalogue's."""

    alias: str
    quant: str | None = None


ModelName = RepoName | OllamaName | UrlName | PathName | AliasName


def parse_name(text: str) -> ModelName:
    """The name that `text` spells. Raises UsageError with the nearest good spelling in its hint."""
    text = text.strip()
    if not text or len(text) > MAX_TEXT or any(ord(char) < 32 for char in text):
        raise UsageError(_("this is not a model name: {text!r}").format(text=text[:80]), hint=_forms())
    if _looks_like_path(text):
        return _path(text)
    prefix, colon, rest = text.partition(":")
    if colon and prefix.lower() in ("http", "https"):
        return _url(text)
    if text.lower().startswith(tuple(f"{host}/" for host in _HUB_HOSTS + _MODELSCOPE_HOSTS)):
        return _url(f"https://{text}")
    if colon and prefix.lower() in ("hf", "ms"):
        return _repo("hf" if prefix.lower() == "hf" else "ms", rest.removeprefix("//"), text)
    if colon and prefix.lower() == "ollama":
        return _ollama(rest.removeprefix("//"), text)
    if "/" in text or "\\" in text:
        raise _with_slash(text)
    return _alias(text)


def as_name(text: str) -> ModelName | None:
    """The name that `text` spells; None where it spells none."""
    try:
        return parse_name(text)
    except UsageError:
        return None


def format_name(name: ModelName) -> str:
    """The spelling of `name` that `parse_name` reads back as the same value."""
    match name:
        case RepoName():
            chosen = f":{name.quant}" if name.quant else f"/{name.file}" if name.file else ""
            return f"{name.source}:{name.org}/{name.repo}{chosen}" + (f"@{name.revision}" if name.revision else "")
        case OllamaName():
            return f"ollama:{_ollama_path(name)}:{name.tag}"
        case UrlName():
            return name.url + (f"#sha256={name.sha256}" if name.sha256 else "")
        case PathName():
            text = str(name.path)
            return text if name.path.is_absolute() or name.path.parts[:1] == ("..",) else f"./{text}"
        case AliasName():
            return name.alias + (f":{name.quant}" if name.quant else "")


def store_folder(name: RepoName | OllamaName | UrlName) -> PurePosixPath:
    """The folder, relative to a store's root, that holds a model of this name.

    A pinned revision has a folder of its own, so that two revisions of one file never overwrite each other.
    """
    match name:
        case RepoName():
            pinned = f"@{name.revision.replace('/', '+')}" if name.revision else ""
            return PurePosixPath(name.source, name.org, f"{name.repo}{pinned}")
        case OllamaName():
            return PurePosixPath("ollama", *_ollama_path(name).replace(":", "+").split("/"))
        case UrlName():
            parts = urlsplit(name.url)
            host = (parts.hostname or "") + (f"+{parts.port}" if parts.port else "")
            folders = [safe_component(unquote(part)) for part in parts.path.split("/")[:-1] if part]
            return PurePosixPath("url", safe_component(host), *folders)


def is_safe_component(text: str) -> bool:
    """Whether `text` may be one component of a path below a store's root, on every system."""
    try:
        length_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return (
        0 < length_bytes <= MAX_COMPONENT_BYTES
        and not text.startswith((" ", "~"))
        and not text.endswith((" ", "."))
        and not _FORBIDDEN.search(text)
        and not _RESERVED.fullmatch(text)
    )


def is_safe_path(text: str) -> bool:
    """Whether `text` is a relative path of safe components, separated by `/`."""
    parts = text.split("/")
    return len(parts) <= 16 and all(is_safe_component(part) for part in parts)


def safe_component(text: str) -> str:
    """`text` with what may not be in a path replaced by `_`: for folders named after something free-form."""
    cleaned = _FORBIDDEN.sub("_", text).strip(" ").rstrip(".")
    while len(cleaned.encode("utf-8", "replace")) > MAX_COMPONENT_BYTES:
        cleaned = cleaned[:-1].rstrip(" .")
    return cleaned if is_safe_component(cleaned) else f"_{cleaned}" if is_safe_component(f"_{cleaned}") else "_"


def is_sha256(text: object) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _forms() -> str:
    return _(
        "Names look like hf:org/repo, hf:org/repo:Q4_K_M, ms:org/repo, ollama:name:tag, https://.../file.gguf, "
        "a path, or a short name such as qwen3:8b."
    )


def _bad(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(_("{text} is not a model name: {why}").format(text=text, why=why), hint=hint or _forms())


def _looks_like_path(text: str) -> bool:
    if text in (".", "..", "~") or text.startswith(("/", "./", "../", "~/", "\\", ".\\", "..\\", "~\\")):
        return True
    if _DRIVE.match(text):
        return True
    prefix = text.partition(":")[0].lower()
    if prefix in _PREFIXES or text.lower().startswith(tuple(f"{host}/" for host in _HUB_HOSTS + _MODELSCOPE_HOSTS)):
        return False
    return text.lower().endswith(".gguf")


def _path(text: str) -> PathName:
    path = Path(text)
    if text.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError as error:
            raise _bad(text, _("this machine does not say where the home folder is")) from error
    return PathName(path)


def _repo(source: Literal["hf", "ms"], body: str, text: str) -> RepoName:
    body, at, revision = body.rpartition("@") if "@" in body else (body, "", "")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise _bad(text, _("{revision!r} cannot be a branch, tag or commit").format(revision=revision))
    org, _slash, rest = body.partition("/")
    repo, slash, file = rest.partition("/")
    quant: str | None = None
    if not slash:
        repo, colon, chosen = rest.partition(":")
        if chosen.lower().endswith(".gguf"):
            file = chosen
        elif colon:
            if not _QUANT.fullmatch(chosen):
                raise _bad(text, _("{quant!r} cannot be a quantization such as Q4_K_M").format(quant=chosen))
            quant = chosen.upper()
    for part in (org, repo):
        if not _ORG_OR_REPO.fullmatch(part) or ".." in part or _RESERVED.fullmatch(part):
            raise _bad(text, _("after {source}: comes organisation/repository").format(source=source))
    if slash or file:
        if not file.lower().endswith(".gguf"):
            raise _bad(text, _("the file must end in .gguf"), _repo_hint(source, org, repo))
        if not is_safe_path(file):
            raise _bad(text, _("{file!r} is not a safe file name").format(file=file))
    if revision == DEFAULT_REVISION[source]:
        revision = ""
    return RepoName(source, org, repo, quant, file or None, revision or None)


def _repo_hint(source: str, org: str, repo: str) -> str:
    return _("See what it has: {command}").format(command=f"bendi pull --list {source}:{org}/{repo}")


def _ollama(body: str, text: str) -> OllamaName:
    head, _slash, last = body.rpartition("/")
    name, colon, tag = last.partition(":")
    parts = head.split("/") if head else []
    host: str | None = None
    if parts and len(parts) == 2:
        host = parts.pop(0).lower()
        if not _HOST.fullmatch(host) or ".." in host:
            raise _bad(text, _("{host!r} is not a host name").format(host=host))
    namespace = parts[0] if parts else "library"
    if len(parts) > 1 or not all(
        _ORG_OR_REPO.fullmatch(part) and ".." not in part and not _RESERVED.fullmatch(part)
        for part in (namespace, name)
    ):
        raise _bad(text, _("after ollama: comes name:tag or namespace/name:tag"))
    if colon and (not _TAG.fullmatch(tag) or ".." in tag or _RESERVED.fullmatch(tag)):
        raise _bad(text, _("{tag!r} cannot be a tag").format(tag=tag))
    return OllamaName(name, tag or "latest", namespace, host)


def _ollama_path(name: OllamaName) -> str:
    if name.host:
        return f"{name.host}/{name.namespace}/{name.name}"
    return name.name if name.namespace == "library" else f"{name.namespace}/{name.name}"


def _url(text: str) -> UrlName | RepoName:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError as error:
        raise _bad(text, _("this URL cannot be read")) from error
    host = (parts.hostname or "").lower()
    if not host or not port_is_valid or any(char.isspace() for char in text) or "\\" in text:
        raise _bad(text, _("this URL cannot be read"))
    if parts.username is not None or parts.password is not None:
        shown = f"{parts.scheme}://...@{host}{parts.path}"
        raise _bad(
            shown,
            _("a URL with a password in it would be written into the records of the store"),
            _("Download that file by other means, then: bendi import FILE"),
        )
    repo = _repo_of_url(host, parts.path, text)
    if repo:
        return repo
    if not unquote(parts.path).lower().endswith(".gguf") or not is_safe_component(
        unquote(parts.path).rpartition("/")[2]
    ):
        raise _bad(text, _("the URL must end in the name of a .gguf file"))
    key, _equals, digest = parts.fragment.partition("=")
    if parts.fragment and (key != "sha256" or not is_sha256(digest.lower())):
        raise _bad(text, _("after # only sha256=<64 hexadecimal digits> is understood"))
    netloc = parts.netloc.lower()
    return UrlName(urlunsplit((parts.scheme.lower(), netloc, parts.path, parts.query, "")), digest.lower() or None)


def _repo_of_url(host: str, path: str, text: str) -> RepoName | None:
    """The repository name behind a URL copied from a page of the hub or of ModelScope: it has hashes, a URL has not."""
    parts = [unquote(part) for part in path.split("/") if part]
    if host in _HUB_HOSTS:
        source = "hf"
    elif host in _MODELSCOPE_HOSTS and parts[:1] == ["models"]:
        source, parts = "ms", parts[1:]
    else:
        return None
    if len(parts) < 2 or (len(parts) > 2 and parts[2] not in ("resolve", "blob", "raw", "tree", "summary", "files")):
        return None
    spelled = f"{parts[0]}/{parts[1]}"
    if len(parts) >= 5 and parts[2] in ("resolve", "blob", "raw"):
        spelled += "/" + "/".join(parts[4:])
    if len(parts) >= 4:
        spelled += f"@{parts[3]}"
    return _repo("hf" if source == "hf" else "ms", spelled, text)


def _alias(text: str) -> AliasName:
    body, quant = text.lower(), None
    if body.count(":") == 2:
        body, _colon, chosen = body.rpartition(":")
        if not _QUANT.fullmatch(chosen):
            raise _bad(text, _("{quant!r} cannot be a quantization such as Q4_K_M").format(quant=chosen))
        quant = chosen.upper()
    if not _ALIAS.fullmatch(body):
        raise _bad(text, _("it has characters that a name cannot have"))
    return AliasName(body, quant)


def _with_slash(text: str) -> UsageError:
    """The error for `org/repo` without a prefix, or with a prefix that does not exist."""
    prefix, colon, rest = text.partition(":")
    if colon and "/" not in prefix:
        close = get_close_matches(prefix.lower(), ("hf", "ms", "ollama", "huggingface", "modelscope"), n=1, cutoff=0.5)
        short = {"huggingface": "hf", "modelscope": "ms"}.get(close[0], close[0]) if close else "hf"
        return _bad(
            text,
            _("there is no kind of name {prefix!r}").format(prefix=prefix),
            _("Did you mean {name}?").format(name=f"{short}:{rest}"),
        )
    if "\\" in text or text.count("/") > 1:
        return _bad(text, _("it is neither a path to a .gguf file nor a name"), "")
    where = _("From the hub: {hub}. From ModelScope: {modelscope}.").format(hub=f"hf:{text}", modelscope=f"ms:{text}")
    return _bad(text, _("it does not say where the model is"), where)


def quote_path(text: str) -> str:
    """`text` for use in the path of a URL: slashes stay."""
    return quote(text, safe="/")


def typed(text: str) -> str:
    """`text` as it is typed in a shell: in quotes where it must be."""
    if text and all(char.isalnum() or char in "@%+=:,./-_\\" for char in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"
