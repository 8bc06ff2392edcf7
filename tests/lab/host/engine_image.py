"""An image that looks like vllm/vllm-openai, made on a host of the host's own files: no registry is reached here.

``engine_image.py make DIRECTORY PREFIX`` prints the digest of its manifest; PREFIX is the virtual environment with the
engine. ``engine_image.py serve DIRECTORY PORT`` is the part of a registry that ``docker pull`` asks, ``engine_image.py
save DIRECTORY FILE`` writes it as ``docker save`` would, and prints the checksum. Plain Python, because it runs on the
hosts.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

PLACES = ("bin", "etc/alternatives", "etc/ld.so.cache", "etc/ld.so.conf.d", "etc/nsswitch.conf", "etc/passwd")
MORE_PLACES = ("etc/group", "etc/ssl", "lib", "lib64", "sbin", "usr")
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/lib/modules", "usr/libexec/docker", "usr/src")
NAME = "vllm/vllm-openai:v0.33.0"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def make(place: Path, prefix: str) -> str:
    """Write what a registry serves; returns the digest of the manifest."""
    place.mkdir(parents=True)
    there = [name for name in (*PLACES, *MORE_PLACES, prefix.lstrip("/")) if Path("/", name).exists()]
    left_out = [f"--exclude={name}" for name in LEFT_OUT]
    subprocess.run(["tar", "--create", f"--file={place}/layer.tar", "--directory=/", *left_out, *there], check=True)
    layer = sha256(place / "layer.tar")
    settings = {"Entrypoint": ["vllm", "serve"], "Env": [f"PATH={prefix}/bin:/usr/local/bin:/usr/bin:/bin"]}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    roots = {"type": "layers", "diff_ids": [layer]}
    image = {"architecture": machine, "os": "linux", "config": settings, "rootfs": roots, "history": [{}]}
    (place / "config.json").write_text(json.dumps(image))
    blobs = {sha256(place / name): name for name in ("config.json", "layer.tar")}
    described = [{"digest": digest, "size": (place / name).stat().st_size} for digest, name in blobs.items()]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", **described[0]}
    content = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar", **described[1]}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content]}
    (place / "registry.json").write_text(json.dumps(manifest))
    digest = sha256(place / "registry.json")
    (place / "blobs.json").write_text(json.dumps({**blobs, digest: "registry.json"}))
    return digest


def save(place: Path, file: Path) -> str:
    """Write an archive that `docker load` takes; returns its checksum."""
    saved = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    (place / "manifest.json").write_text(json.dumps(saved))
    with tarfile.open(file, "w") as archive:
        for name in ("manifest.json", "config.json", "layer.tar"):
            archive.add(place / name, name)
    return sha256(file)


def serve(place: Path, port: int) -> None:
    """Answer for manifests and blobs by their digests."""
    names = json.loads((place / "blobs.json").read_text())

    class Registry(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2]
            name = names.get(digest)
            if self.path != "/v2/" and not name:
                self.send_error(404)
                return
            path = place / name if name else None
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST if name == "registry.json" else "application/octet-stream")
            self.send_header("Content-Length", str(path.stat().st_size if path else 0))
            if path:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if path and self.command == "GET":
                with path.open("rb") as file:
                    for chunk in iter(lambda: file.read(1 << 20), b""):
                        self.wfile.write(chunk)

    http.server.ThreadingHTTPServer(("", port), Registry).serve_forever()


if __name__ == "__main__":
    verb, directory, argument = sys.argv[1:]
    if verb == "make":
        print(make(Path(directory), argument))
    elif verb == "save":
        print(save(Path(directory), Path(argument)))
    else:
        serve(Path(directory), int(argument))
