"""The images of the lab's hosts: Debian with systemd and sshd, from a registry or debootstrap, cached as tar files."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import docker
import requests
from docker.errors import BuildError, DockerException, ImageNotFound
from docker.models.images import Image

from . import engine
from .phases import Say, follow
from .settings import CACHE, LABEL, NAME, LabError

RELEASES = {"bookworm": "12", "trixie": "13"}  # name -> tag of the registry's `debian` image
HOST = Path(__file__).with_name("host")  # Dockerfile and the files it adds

_REGISTRY_SECONDS = 10  # without a word from the registry: there is none
_ARCHIVE = "http://deb.debian.org/debian"
_INSTALLING = threading.Lock()


def tag(release: str) -> str:
    """Name of the image of hosts that run this Debian release."""
    return f"{NAME}:{release}"


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Make every image that is absent or made from other inputs, all at once."""
    context = _context()
    digest = hashlib.sha256(context).hexdigest()[:12]
    with concurrent.futures.ThreadPoolExecutor(len(RELEASES)) as pool:
        for future in [pool.submit(_prepare, client, release, context, digest, say) for release in RELEASES]:
            future.result()


def _prepare(client: docker.DockerClient, release: str, context: bytes, digest: str, say: Say) -> None:
    present = _find(client, tag(release))
    if present and present.labels.get(LABEL) == digest:
        return
    cached = CACHE / "images" / f"{release}-{digest}.tar"
    if cached.is_file():
        with cached.open("rb") as file:
            client.images.load(file)
        say(f"{release}: loaded from {cached}")
        return
    official = f"debian:{RELEASES[release]}"
    base = official
    borrowed = bool(_find(client, official))
    if not borrowed and not _pull(official, release, say):
        base = _bootstrap(client, release, say)
    say(f"{release}: adding the packages of a host")
    try:
        image, _ = client.images.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            buildargs={"BASE": base, "SUITE": release},
            labels={LABEL: digest},
            tag=tag(release),
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        log = "".join(entry.get("stream", "") for entry in error.build_log)
        raise LabError(f"building {tag(release)} failed: {error.msg}\n{log[-2000:]}") from error
    if not borrowed:
        client.images.remove(base)  # only its name: the layers are part of the host's image
    cached.parent.mkdir(parents=True, exist_ok=True)
    for old in cached.parent.glob(f"{release}-*"):
        old.unlink()
    unfinished = cached.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.writelines(image.save(named=tag(release)))
    unfinished.rename(cached)


def _find(client: docker.DockerClient, name: str) -> Image | None:
    try:
        return client.images.get(name)
    except ImageNotFound:
        return None


def _pull(name: str, release: str, say: Say) -> bool:
    """Pull an image; False where no registry answers."""
    say(f"{release}: asking the registry for {name}")
    try:
        docker.from_env(timeout=_REGISTRY_SECONDS).images.pull(*name.split(":"))
    except (DockerException, requests.RequestException) as error:
        say(f"{release}: {str(error)[-90:]}")
        return False
    return True


def _bootstrap(client: docker.DockerClient, release: str, say: Say) -> str:
    """Make the image that the registry would have had with debootstrap, which needs root."""
    with _INSTALLING:  # the other release wants it at the same time
        if not shutil.which("debootstrap"):
            engine.install(["debootstrap", "debian-archive-keyring"], say)
    name = f"{NAME}-base:{release}"
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-{release}-") as directory:
        follow(
            ["debootstrap", "--variant=minbase", release, directory, _ARCHIVE],
            lambda text: say(f"{release}: {text}"),
        )
        with subprocess.Popen(["tar", "-C", directory, "-c", "."], stdout=subprocess.PIPE) as tree:
            assert tree.stdout
            client.api.import_image_from_stream(tree.stdout, *name.split(":"))
    return name


def _context() -> bytes:
    """The build context: the host directory with modes that do not depend on the umask of the checkout."""

    def normalize(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(HOST.rglob("*")):
            archive.add(path, str(path.relative_to(HOST)), recursive=False, filter=normalize)
    return buffer.getvalue()
