"""Alerts about GPUs."""

from __future__ import annotations

from .case import Case

__all__ = ["CASES"]

_WHICH = {"host": "gpu1", "gpu": "0", "UUID": "GPU-1", "modelName": "NVIDIA H100 80GB HBM3"}
# What DCGM's exporter and the collector both have; each names the host itself in a label besides, as here.
_GPU = {"job": "gpu", "instance": "10.0.0.1:9400", "hostname": "gpu1.example.com", **_WHICH}
_NODE = {"job": "node", "host": "gpu1", "instance": "10.0.0.1:9100"}


def _series(name: str, labels: dict[str, str] | None = None) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in (labels or _GPU).items()) + "}"


def _of(field: str) -> str:
    return _series(f"DCGM_FI_DEV_{field}")


def _simple(alert: str, field: str, bad: str, good: str, *, at: int = 10) -> Case:
    return Case(alert, at, {_of(field): bad}, _GPU, quiet={_of(field): good})


_XID, _REASONS, _TEMP = _of("XID_ERRORS"), _of("CLOCKS_EVENT_REASONS"), _of("GPU_TEMP")
_UP = _series("up", _NODE)
_EXPECTED, _FOUND = _series("gpuhosts_gpus_expected", _NODE), _series("gpuhosts_gpus_found", _NODE)
_ORPHAN = {**_NODE, "gpu": "0", "UUID": "GPU-1"}
_WIDTH, _MAX_WIDTH, _GEN, _MAX_GEN, _UTIL = map(
    _of, ("PCIE_LINK_WIDTH", "PCIE_MAX_LINK_WIDTH", "PCIE_LINK_GEN", "PCIE_MAX_LINK_GEN", "GPU_UTIL")
)

CASES = (
    # An XID of each owner, and of the other two none; the last XID of a GPU without any is 0.
    Case("GpuXidHardware", 180, {_XID: "79"}, {**_WHICH, "xid": "79"}, quiet={_XID: "31"}, idle={_XID: "0"}),
    Case("GpuXidHardware", 10, {_XID: "48"}, {**_WHICH, "xid": "48"}, quiet={_XID: "94"}, idle={_XID: "0"}),
    Case("GpuXidOther", 30, {_XID: "0x5 94x60"}, {**_WHICH, "xid": "94"}, quiet={_XID: "79"}, idle={_XID: "0"}),
    Case("GpuXidOther", 30, {_XID: "999"}, {**_WHICH, "xid": "999"}, quiet={_XID: "13"}, idle={_XID: "0"}),
    Case("GpuXidApplication", 30, {_XID: "0x5 31x60"}, {**_WHICH, "xid": "31"}, quiet={_XID: "119"}, idle={_XID: "0"}),
    # The last XID stays for ever; after an hour it is no news.
    Case("GpuXidApplication", 30, {_XID: "43"}, {**_WHICH, "xid": "43"}, quiet={_XID: "0"}, idle={_XID: "0"}),
    _simple("GpuRowRemapFailed", "ROW_REMAP_FAILURE", "1", "0"),
    _simple("GpuRowRemapPending", "ROW_REMAP_PENDING", "1", "0"),
    _simple("GpuEccUncorrectable", "ECC_DBE_VOL_TOTAL", "0x5 0+1", "3"),
    _simple("GpuEccCorrected", "ECC_SBE_VOL_TOTAL", "0+100", "0+1", at=70),
    # 0x20 slowdown by software for heat, 0x40 by hardware for heat with 0x8, which is set with each by hardware.
    _simple("GpuThermalSlowdown", "CLOCKS_EVENT_REASONS", "32", "4"),
    _simple("GpuThermalSlowdown", "CLOCKS_EVENT_REASONS", "72", "136"),
    # 0x80 the brake of the power supply with 0x8, 0x8 alone; 0x4, the cap on power, is what a busy GPU has.
    _simple("GpuPowerSlowdown", "CLOCKS_EVENT_REASONS", "136", "4"),
    _simple("GpuPowerSlowdown", "CLOCKS_EVENT_REASONS", "8", "72"),
    _simple("GpuHot", "GPU_TEMP", "91", "80", at=20),
    _simple("GpuNvlinkErrors", "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "0+10", "0+1", at=70),
    _simple("GpuNvlinkErrors", "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "0+10", "0+1", at=70),
    _simple("GpuNvlinkErrors", "NVLINK_REPLAY_ERROR_COUNT_TOTAL", "0+10", "0+1", at=70),
    _simple("GpuNvlinkErrors", "NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "0+0.1", "1", at=70),
    Case("GpuPcieDegraded", 30, {_WIDTH: "8", _MAX_WIDTH: "16"}, _GPU, quiet={_WIDTH: "16"}),
    # Without work a GPU lowers the generation of its link.
    Case(
        "GpuPcieDegraded",
        30,
        {_GEN: "3", _MAX_GEN: "5", _UTIL: "90"},
        _GPU,
        quiet={_GEN: "5"},
        idle={_UTIL: "0", _GEN: "1"},
    ),
    _simple("GpuPcieReplays", "PCIE_REPLAY_COUNTER", "0+60", "0+1", at=70),
    Case("GpuLost", 10, {_FOUND: "7", _EXPECTED: "8"}, _NODE, quiet={_FOUND: "8"}),
    Case(
        "GpuVanished",
        40,
        {_TEMP: "50x10 stale", _UP: "1"},
        {"host": "gpu1", "gpu": "0", "UUID": "GPU-1"},
        quiet={_UP: "0"},  # with its host, which is said by another alert
        idle={_TEMP: "50"},
        gone=(_TEMP,),
    ),
    Case(
        "GpuMetricsAbsent",
        30,
        {_EXPECTED: "8", _TEMP: "50x5 stale"},
        _NODE,
        quiet={_TEMP: "50"},
        idle={_EXPECTED: "0"},
        gone=(_TEMP,),
        when_gone=1,
    ),
    Case(
        "GpuOrphanMemory",
        60,
        {_series("gpuhosts_gpu_orphan_bytes", _ORPHAN): "8589934592"},
        _ORPHAN,
        quiet={_series("gpuhosts_gpu_orphan_bytes", _ORPHAN): "1073741824"},
    ),
)
