"""Stands where alerts are told: keeps the name, the state and the path of each, a line for it in the given file."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Receiver(BaseHTTPRequestHandler):
    """A webhook."""

    def do_POST(self) -> None:
        """Take what Alertmanager tells."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        lines = [f"{alert['labels']['alertname']} {alert['status']} {self.path}\n" for alert in told["alerts"]]
        with Path(sys.argv[1]).open("a") as file:
            file.writelines(lines)
        self.send_response(200)
        self.end_headers()


HTTPServer(("127.0.0.1", 9095), Receiver).serve_forever()
