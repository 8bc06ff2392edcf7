"""Rules about GPUs; private to the collection.

Names and labels are dcgm-exporter's, whoever gives them (the collector of the role exporters has the same names):
https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv and dcp-metrics-included.csv beside it.
ROW_REMAP_PENDING, CLOCKS_EVENT_REASONS and PCIE_{,MAX_}LINK_{GEN,WIDTH} are fields that these files do not name:
https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html.
"""

from __future__ import annotations

from .kinds import Alert, Area, Record

__all__ = ["APPLICATION_XIDS", "GPU", "HARDWARE_XIDS"]

# NVIDIA's catalogue, by its "immediate action": https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html.
# To reset the GPU, to restart the host, to look at cables, or its work flows for memory errors and for NVLink.
HARDWARE_XIDS = (
    46, 48, 54, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 144, 145, 146, 147, 148, 149, 150, 156, 158,
    171, 172,
)  # fmt: skip
# To restart the application, or nothing. Left out, and so a ticket: 94, which asks for a reset when convenient; 92, 157
# and the like, which ask for nothing at once and for the vendor afterwards.
APPLICATION_XIDS = (
    8, 11, 13, 14, 25, 31, 32, 37, 39, 40, 41, 43, 44, 45, 60, 63, 66, 67, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83,
    84, 85, 86, 88, 89, *range(96, 108), *range(126, 136), 137, 139, 141, 154,
)  # fmt: skip

_GPU = "host, gpu, UUID, modelName"
_WHICH = "GPU {{ $labels.gpu }} ({{ $labels.modelName }}, {{ $labels.UUID }}) of {{ $labels.host }}"


def _any(xids: tuple[int, ...]) -> str:
    return "|".join(map(str, xids))


def _bit(series: str, bit: int) -> str:
    """Where the bit is set: https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html."""
    return f"floor({series} / {bit}) % 2 == 1"


_REASONS = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"
_NVLINK = ("CRC_FLIT_ERROR", "CRC_DATA_ERROR", "REPLAY_ERROR", "RECOVERY_ERROR")

GPU = Area(
    "gpu",
    "GPUs",
    (
        Alert(
            "GpuXidHardware", "page", "0s",
            f'gpu:xid:last{{xid=~"{_any(HARDWARE_XIDS)}"}}',
            "XID {{ $labels.xid }} of GPU {{ $labels.gpu }} of {{ $labels.host }}: the GPU has to be reset or looked"
            " at",
            f"The last XID of {_WHICH} is {{{{ $labels.xid }}}}. Whatever runs on it is lost or wrong.",
        ),
        Alert(
            "GpuXidOther", "ticket", "0s",
            f'gpu:xid:last{{xid!~"{_any(HARDWARE_XIDS)}|{_any(APPLICATION_XIDS)}"}} unless gpu:xid:last offset 1h',
            "XID {{ $labels.xid }} of GPU {{ $labels.gpu }} of {{ $labels.host }}",
            f"{_WHICH} had XID {{{{ $labels.xid }}}}, which asks for nothing at once, or is unknown to this rule.",
        ),
        Alert(
            "GpuXidApplication", "info", "0s",
            f'gpu:xid:last{{xid=~"{_any(APPLICATION_XIDS)}"}} unless gpu:xid:last offset 1h',
            "XID {{ $labels.xid }} of a program on GPU {{ $labels.gpu }} of {{ $labels.host }}",
            f"A program on {_WHICH} did what it may not (XID {{{{ $labels.xid }}}}). The GPU is well.",
        ),
        Alert(
            "GpuRowRemapFailed", "page", "0s",
            "DCGM_FI_DEV_ROW_REMAP_FAILURE > 0",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} has no spare memory left",
            f"A bad row of the memory of {_WHICH} could not be replaced. The card has to be.",
        ),
        Alert(
            "GpuRowRemapPending", "ticket", "0s",
            "DCGM_FI_DEV_ROW_REMAP_PENDING > 0",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} wants a reset",
            f"A row of the memory of {_WHICH} is replaced at the next reset.",
        ),
        Alert(
            "GpuEccUncorrectable", "page", "0s",
            "increase(DCGM_FI_DEV_ECC_DBE_VOL_TOTAL[1h]) > 0",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} has lost data",
            f'{{{{ $value | printf "%.0f" }}}} errors of the memory of {_WHICH} could not be corrected within an hour.',
        ),
        Alert(
            "GpuEccCorrected", "ticket", "0s",
            "increase(DCGM_FI_DEV_ECC_SBE_VOL_TOTAL[1h]) > <ecc_corrected_per_hour>",
            "The memory of GPU {{ $labels.gpu }} of {{ $labels.host }} makes many errors",
            f'{{{{ $value | printf "%.0f" }}}} errors of the memory of {_WHICH} were corrected within an hour.',
        ),
        Alert(
            "GpuThermalSlowdown", "ticket", "5m",
            f"{_bit(_REASONS, 0x20)} or {_bit(_REASONS, 0x40)}",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} is slowed down by heat",
            f"{_WHICH} has lowered its clocks for 5 minutes because it is too hot.",
        ),
        Alert(
            "GpuPowerSlowdown", "ticket", "5m",
            # The bit of any slowdown by hardware alone says nothing of heat when that of heat is clear.
            f"{_bit(_REASONS, 0x80)} or ({_bit(_REASONS, 0x8)} unless {_bit(_REASONS, 0x40)})",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} is slowed down for want of power",
            f"{_WHICH} has lowered its clocks for 5 minutes because of its power supply.",
        ),
        Alert(
            "GpuHot", "ticket", "10m",
            "DCGM_FI_DEV_GPU_TEMP > <gpu_celsius>",
            "GPU {{ $labels.gpu }} of {{ $labels.host }} is hot",
            f"{_WHICH} has had {{{{ $value }}}} degrees Celsius for 10 minutes.",
        ),
        Alert(
            "GpuNvlinkErrors", "ticket", "5m",
            " or ".join(
                f"increase(DCGM_FI_DEV_NVLINK_{kind}_COUNT_TOTAL[1h]) >"
                f" {'0' if kind == 'RECOVERY_ERROR' else '<nvlink_errors_per_hour>'}"
                for kind in _NVLINK
            ),
            "NVLink of GPU {{ $labels.gpu }} of {{ $labels.host }} makes errors",
            f'{{{{ $value | printf "%.0f" }}}} errors of one kind on NVLink of {_WHICH} within an hour.',
        ),
        Alert(
            "GpuPcieDegraded", "ticket", "15m",
            "DCGM_FI_DEV_PCIE_LINK_WIDTH < DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH"
            # An idle GPU lowers the generation by itself.
            " or (DCGM_FI_DEV_PCIE_LINK_GEN < DCGM_FI_DEV_PCIE_MAX_LINK_GEN and DCGM_FI_DEV_GPU_UTIL > 50)",
            "PCIe of GPU {{ $labels.gpu }} of {{ $labels.host }} is slower than it can be",
            f"The link of {_WHICH} has had width or generation {{{{ $value }}}} for 15 minutes, which is less than"
            f" its best.",
        ),
        Alert(
            "GpuPcieReplays", "ticket", "5m",
            "increase(DCGM_FI_DEV_PCIE_REPLAY_COUNTER[1h]) > <pcie_replays_per_hour>",
            "PCIe of GPU {{ $labels.gpu }} of {{ $labels.host }} makes errors",
            f'{{{{ $value | printf "%.0f" }}}} transfers of {_WHICH} were repeated within an hour.',
        ),
        Alert(
            "GpuLost", "page", "2m",
            "gpuhosts_gpus_found < gpuhosts_gpus_expected",
            "{{ $labels.host }} has lost a GPU",
            "The driver of {{ $labels.host }} answers for {{ $value }} GPUs, fewer than there are or were.",
        ),
        Alert(
            "GpuVanished", "ticket", "10m",
            "group by (host, gpu, UUID) (last_over_time(DCGM_FI_DEV_GPU_TEMP[1h]))"
            " unless group by (host, gpu, UUID) (DCGM_FI_DEV_GPU_TEMP)"
            ' and on (host) up{job="node"} == 1',
            "GPU {{ $labels.gpu }} of {{ $labels.host }} is not heard of",
            "{{ $labels.UUID }} was there within the last hour, and is not now, while {{ $labels.host }} is up.",
        ),
        Alert(
            "GpuMetricsAbsent", "ticket", "10m",
            "gpuhosts_gpus_expected > 0 unless on (host) DCGM_FI_DEV_GPU_TEMP",
            "Nothing is told of the GPUs of {{ $labels.host }}",
            "{{ $labels.host }} has {{ $value }} GPUs, and no exporter tells their state: alerts about them cannot"
            " fire.",
        ),
        Alert(
            "GpuOrphanMemory", "ticket", "30m",
            "gpuhosts_gpu_orphan_bytes / 1024 / 1024 / 1024 > <orphan_gib>",
            "Memory of GPU {{ $labels.gpu }} of {{ $labels.host }} is held by a stranger",
            'Processes that belong to no engine hold {{ $value | printf "%.1f" }} GiB of {{ $labels.UUID }}.',
        ),
    ),
    (
        # The XID is the value of a gauge; as a label, rules can choose by it.
        Record("gpu:xid:last", f'count_values by ({_GPU}) ("xid", DCGM_FI_DEV_XID_ERRORS != 0)'),
    ),
)  # fmt: skip
