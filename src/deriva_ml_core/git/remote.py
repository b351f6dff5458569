"""From a remote's address to the address of one file in a browser, with nobody's name or token in it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from deriva_ml_core.git.command import run_git

__all__ = ["blob_url", "remote_url", "tree_url", "web_url"]

_SCP_ADDRESS = re.compile(r"(?:[^/@:]*@)?(?P<host>\[[^\]/]+\]|[^/@:\[\]]{2,}):(?!:|//)(?P<path>.+)", re.DOTALL)
_SCHEMES = frozenset({"http", "https", "ssh", "git", "git+ssh", "ssh+git"})
# the hosts' own second doors for ssh through a firewall
_SSH_HOST_ALIASES = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}


def remote_url(root: Path) -> str | None:
    """The address of the remote ``origin``, or of the first one where there is none of that name; see `web_url`."""
    remotes: dict[str, str] = {}
    for line in run_git(root, "remote", "-v").lines:
        name, _, address = line.partition("\t")
        remotes.setdefault(name, re.sub(r" \((?:fetch|push)\).*$", "", address))
    addresses = [remotes.pop("origin", ""), *remotes.values()]
    return next(filter(None, map(web_url, addresses)), None)


def web_url(address: str) -> str | None:
    """Turn a remote's address into one for a browser.

    Args:
        address: As git has it: ``https://user:token@host/org/repo.git``, ``git@host:org/repo.git``, ``ssh://…``.

    Returns:
        ``https://host/org/repo``, without user names, tokens and ``.git``; None for a folder or what cannot be read.
    """
    if "://" in address:
        return _convert_url(address)
    if found := _SCP_ADDRESS.fullmatch(address):
        return _build_url(found["host"], found["path"])
    return None


def _convert_url(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    if parts.scheme == "http" and port:
        return _build_url(f"{host}:{port}", parts.path, "http")
    return _build_url(f"{host}:{port}" if parts.scheme == "https" and port else host, parts.path)


def _build_url(host: str, path: str, scheme: str = "https") -> str | None:
    path = unquote(path).strip("/").removesuffix(".git").rstrip("/")
    host = _SSH_HOST_ALIASES.get(host.lower(), host.lower())
    return f"{scheme}://{host}/{quote(path, safe='/~@+,')}" if path else None


def blob_url(repository: str, commit: str, path: str) -> str:
    """The address of one file as it was at one commit.

    Args:
        repository: As `web_url` gives it.
        commit: The commit's hash.
        path: The file's path in the repository, with ``/``.

    Returns:
        ``…/blob/<commit>/<path>`` as GitHub has it, and in the words of GitLab and Bitbucket where they are the host.
    """
    host = urlsplit(repository).hostname or ""
    folder = "-/blob" if "gitlab" in host else "src" if "bitbucket" in host else "blob"
    return f"{repository}/{folder}/{commit}/{quote(path, safe='/')}"


def tree_url(address: str, commit: str) -> str:
    """The address of a whole repository as it was at one commit; empty where either is not known.

    Args:
        address: The repository's, as for `web_url`.
        commit: The commit's hash.
    """
    repository = web_url(address)
    if repository is None or not commit:
        return ""
    host = urlsplit(repository).hostname or ""
    folder = "-/tree" if "gitlab" in host else "src" if "bitbucket" in host else "tree"
    return f"{repository}/{folder}/{quote(commit, safe='')}"
