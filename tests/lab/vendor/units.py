"""What packages of systemd units do when they are installed."""

from __future__ import annotations

from pathlib import Path

_SCRIPTS = Path(__file__).with_name("files") / "units"


def scripts(*units: str, before: str = "") -> dict[str, str]:
    """Scripts of a package that enable and start units, as debhelper writes them; ``before`` is shell to come first."""
    words = {"units": " ".join(units), "before": before}
    return {name: (_SCRIPTS / name).read_text().format(**words) for name in ("postinst", "prerm")}
