"""What the roles tell systemd is understood by the oldest that they meet: 249, of Ubuntu 22.04."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.directories import drop_in

ROOT = Path(__file__).resolve().parents[3]
OLDEST = 249
# The release that brought what the roles use: "Added in version" of systemd's manual pages, https://www.freedesktop.org/software/
# systemd/man/latest/systemd.exec.html and its siblings. 0: older than all that they tell.
SINCE = {
    name: version
    for version, names in {
        0: """
            After Alias Before CapabilityBoundingSet ConditionPathExists Conflicts Description
            DeviceAllow DevicePolicy Documentation Environment EnvironmentFile ExecReload ExecStart
            ExecStartPost ExecStartPre ExecStop ExecStopPost Group KillMode LimitMEMLOCK LimitNOFILE Nice
            NoNewPrivileges NotifyAccess PIDFile PartOf PrivateDevices PrivateNetwork PrivateTmp Requires Restart
            RestartSec RestrictAddressFamilies RuntimeDirectory RuntimeDirectoryMode StandardError StandardOutput
            SuccessExitStatus SupplementaryGroups SyslogIdentifier SystemCallArchitectures SystemCallErrorNumber
            SystemCallFilter
            TimeoutStartSec TimeoutStopSec Type UMask User WantedBy Wants WatchdogSec WorkingDirectory
        """,
        214: "ProtectHome ProtectSystem",
        229: "AmbientCapabilities StartLimitBurst StartLimitIntervalSec",
        231: "InaccessiblePaths MemoryDenyWriteExecute ReadOnlyPaths ReadWritePaths RestrictRealtime",
        232: "DynamicUser PrivateUsers ProtectControlGroups ProtectKernelModules ProtectKernelTunables RemoveIPC",
        233: "RestrictNamespaces",
        235: """
            CacheDirectory IPAddressAllow IPAddressDeny LockPersonality LogsDirectory
            RuntimeDirectoryPreserve StateDirectory StateDirectoryMode
        """,
        239: "PrivateMounts",
        240: "WatchdogSignal",
        242: "ProtectHostname RestrictSUIDSGID",
        243: "OOMPolicy",
        244: "ProtectKernelLogs",
        245: "ProtectClock",
        247: "LoadCredential ProcSubset ProtectProc",
        248: "PrivateIPC",
    }.items()
    for name in names.split()
}
UNITS = {
    **{
        str(path.relative_to(ROOT)): path.read_text()
        for kind in ("templates", "files")
        for path in ROOT.glob(f"roles/*/{kind}/**/*")
        if path.is_file() and path.suffix != ".pyc"
    },
    "vllm@ID.service.d/places.conf": drop_in(["/srv/models"], ["/srv/hf"], ""),
}


@pytest.mark.parametrize("name", [name for name, text in UNITS.items() if "[Service]" in text])
def test_no_line_is_newer_than_the_oldest_systemd(name: str) -> None:
    used = set(re.findall(r"^([A-Z]\w+)=", UNITS[name], re.MULTILINE))
    assert used
    assert used <= set(SINCE), "look up since when there is one, and add it"
    assert {line: SINCE[line] for line in used if SINCE[line] > OLDEST} == {}


def test_a_lack_of_memory_ends_an_engine_as_any_other_failure_does() -> None:
    """By default systemd stops the unit, which is no failure to a keeper: the next start would come without a pause."""
    assert "\nOOMPolicy=continue\n" in UNITS["roles/vllm/templates/vllm@.service.j2"]


def test_a_step_that_hangs_ends_unless_the_inventory_gives_it_longer() -> None:
    """The files of an instance, where its `env` stands, are read after the lines of the unit."""
    unit = UNITS["roles/vllm/templates/vllm@.service.j2"]
    limit = unit.index("Environment=VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS=120")
    assert limit < unit.index("EnvironmentFile={{ vllm_config_dir }}/instances/%i.env")
