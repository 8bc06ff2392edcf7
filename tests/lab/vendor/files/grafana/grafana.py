#!/usr/bin/python3
"""A stand-in for Grafana @VERSION@: starts from its configuration and provisioning, and tells what it read.

It reads grafana.ini, what $__file{} in it and in datasources names, provisioning/datasources and
provisioning/dashboards, and the dashboards there. It ends with an error where Grafana would: a file that is no YAML, a
datasource without name or type, two of one uid, a certificate that does not fit. It has no web pages and asks no
datasource.
"""

from __future__ import annotations

import base64
import configparser
import json
import pathlib
import re
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

FILE = re.compile(r"\$__file\{(.*?)\}")


def expanded(value: Any) -> Any:
    """A text with the content of files in it, and with $$ for one $."""
    if isinstance(value, dict):
        return {name: expanded(below) for name, below in value.items()}
    if not isinstance(value, str):
        return value
    parts = value.split("$$")
    return "$".join(FILE.sub(lambda match: pathlib.Path(match[1]).read_text().strip(), part) for part in parts)


class Grafana:
    """What the command line, the configuration and the database say."""

    def __init__(self, arguments: list[str]) -> None:
        """Read the configuration."""
        self.paths = dict(word.split("cfg:default.paths.")[1].split("=", 1) for word in arguments if "paths." in word)
        options = dict(word.split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
        self.ini = configparser.RawConfigParser(strict=True)
        self.ini.read_string(pathlib.Path(options["--config"]).read_text())
        self.database = pathlib.Path(self.paths["data"]) / "grafana.db"

    def get(self, section: str, name: str, default: str = "") -> str:
        """A value of grafana.ini."""
        return str(expanded(self.ini.get(section, name, fallback=default)))

    def provisioned(self, kind: str) -> Iterator[dict[str, Any]]:
        """Every record of a kind that is provisioned."""
        for path in sorted((pathlib.Path(self.paths["provisioning"]) / kind).glob("*.y*ml")):
            document = yaml.safe_load(path.read_text()) or {}
            if document.get("apiVersion") != 1:
                sys.exit(f"{path}: apiVersion is not 1")
            yield from document.get("providers" if kind == "dashboards" else "datasources") or []

    def datasources(self) -> list[dict[str, Any]]:
        """As the API tells them; secrets by name only."""
        found: dict[str, dict[str, Any]] = {}
        for record in self.provisioned("datasources"):
            one = expanded(record)
            if not one.get("name") or not one.get("type") or one["uid"] in found or len(one["uid"]) > 40:
                sys.exit(f"datasource {one.get('name')}: refused")
            one["secureJsonFields"] = {name: bool(value) for name, value in one.pop("secureJsonData", {}).items()}
            found[one["uid"]] = one
        return list(found.values())

    def dashboards(self) -> Iterator[dict[str, Any]]:
        """The provisioned ones, read anew as Grafana does every few seconds."""
        for provider in self.provisioned("dashboards"):
            for path in sorted(pathlib.Path(provider["options"]["path"]).glob("*.json")):
                meta = {"folderTitle": provider["folder"], "provisioned": True}
                yield {"meta": meta, "dashboard": json.loads(path.read_text())}

    @property
    def password(self) -> str:
        """The administrator's."""
        return str(json.loads(self.database.read_text())["admin"])

    @password.setter
    def password(self, new: str) -> None:
        self.database.write_text(json.dumps({"admin": new}))


class Handler(BaseHTTPRequestHandler):
    """Answers requests of what Grafana has read."""

    grafana: Grafana
    datasources: list[dict[str, Any]]

    def do_GET(self) -> None:
        """Tell it to the administrator, and the health to everybody."""
        login = base64.b64encode(f"admin:{self.grafana.password}".encode()).decode()
        told = {one["dashboard"]["uid"]: one for one in self.grafana.dashboards()}
        answers: dict[str, Any] = {"/api/datasources": self.datasources, "/api/search": sorted(told)}
        answers.update({f"/api/dashboards/uid/{uid}": one for uid, one in told.items()})
        if self.path == "/api/health":
            self.tell(200, {"database": "ok", "version": "@VERSION@"})
        elif self.headers.get("Authorization") != f"Basic {login}":
            self.tell(401, {"message": "Unauthorized"})
        elif self.path in answers:
            self.tell(200, answers[self.path])
        else:
            self.tell(404, {"message": "Not found"})

    def tell(self, status: int, answer: Any) -> None:
        """Answer with JSON."""
        said = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


def main(arguments: list[str]) -> None:
    """Serve, or set the password of the administrator."""
    grafana = Grafana(arguments)
    initial = grafana.get("security", "admin_password", "admin")
    if arguments[0] == "cli":
        if arguments[-3:] != ["admin", "reset-admin-password", "--password-from-stdin"]:
            sys.exit(f"unknown command: {arguments}")
        grafana.password = sys.stdin.read().strip()
        return
    if not grafana.database.exists():
        grafana.password = initial
        grafana.database.chmod(0o640)
    Handler.grafana, Handler.datasources = grafana, grafana.datasources()
    address = grafana.get("server", "http_addr"), int(grafana.get("server", "http_port", "3000"))
    server = ThreadingHTTPServer(address, Handler)
    if grafana.get("server", "protocol", "http") == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(grafana.get("server", "cert_file"), grafana.get("server", "cert_key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
