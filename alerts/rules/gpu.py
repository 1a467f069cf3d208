"""Is a GPU sick, slowed or out of sight."""

from alerts.rule import Case, Rule, Severity

_GPU = 'gpu="GPU-1",node="n1",gpu_model="H100"'
_LABELS = {"gpu": "GPU-1", "node": "n1", "gpu_model": "H100"}


def _xid(code: str, cause: str, values: str) -> dict[str, str]:
    return {f'hw_gpu_xid_events_total{{{_GPU},xid="{code}",cause="{cause}"}}': values}


def _counted(selector: str, by: str) -> str:
    """What a counter gained.  `increase` misses a series' first value, and an XID's series begins with the event."""
    return f"""
            sum by ({by}) (increase({selector}[{{10m}}])) > 0
            or
            sum by ({by}) ({selector} unless {selector} offset {{10m}}) > 0
        """


_BY_XID = "gpu, node, gpu_model, xid, cause"

RULES = (
    Rule(
        name="GPULost",
        expr="tidegauge_gpu_device_up == 0",
        hold="30s",
        severity=Severity.PAGE,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} is lost ({{ $labels.reason }}); what ran on it is gone",
        description="The driver no longer reads the {{ $labels.gpu_model }}. It usually needs a reset or a reboot, and "
        "often a replacement.",
        runbook="gpu-lost",
        dashboard="gpu",
        fires=(
            Case(
                "fallen off the bus",
                {f'tidegauge_gpu_device_up{{{_GPU},reason="lost"}}': "_x4 0x20"},
                "4m",
                {**_LABELS, "reason": "lost"},
            ),
        ),
        silent=(Case("it answers", {f'tidegauge_gpu_device_up{{{_GPU},reason=""}}': "1x24"}, "4m"),),
    ),
    Rule(
        name="GPUXidHardware",
        expr=_counted('hw_gpu_xid_events_total{cause="hardware"}', _BY_XID),
        severity=Severity.PAGE,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} reports a hardware error, XID {{ $labels.xid }}",
        description='{{ $value | printf "%.0f" }} events. '
        "The {{ $labels.gpu_model }} may compute wrongly or die: move work "
        "away from it, then look up the code.",
        runbook="gpu-xid",
        dashboard="gpu",
        fires=(
            Case(
                "first event",
                _xid("79", "hardware", "_x20 1x20"),
                "6m",
                {**_LABELS, "xid": "79", "cause": "hardware"},
                1,
            ),
            Case(
                "one more",
                _xid("48", "hardware", "2x20 3x20"),
                "6m",
                {**_LABELS, "xid": "48", "cause": "hardware"},
                1,
            ),
        ),
        silent=(
            Case("an application's own fault", _xid("31", "application", "_x20 1x20"), "6m"),
            Case("an old event", _xid("48", "hardware", "2x80"), "16m"),
        ),
    ),
    Rule(
        name="GPUXidOther",
        expr=_counted('hw_gpu_xid_events_total{cause!="hardware"}', _BY_XID),
        severity=Severity.TICKET,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }}: XID {{ $labels.xid }} ({{ $labels.cause }})",
        description='{{ $value | printf "%.0f" }} events. With cause application, a kernel of the engine failed and '
        "the engine probably crashed; with cause driver, the driver did.",
        runbook="gpu-xid",
        dashboard="gpu",
        fires=(
            Case(
                "a page fault of the engine",
                _xid("31", "application", "_x20 1x20"),
                "6m",
                {**_LABELS, "xid": "31", "cause": "application"},
                1,
            ),
        ),
        silent=(Case("hardware has a page of its own", _xid("79", "hardware", "_x20 1x20"), "6m"),),
    ),
    Rule(
        name="GPUUncorrectableECC",
        expr="""
            sum by (gpu, node, gpu_model) (increase(hw_errors_total{error_type="ecc_uncorrectable"}[{10m}])) > 0
        """,
        severity=Severity.PAGE,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }}: uncorrectable memory errors",
        description='{{ $value | printf "%.0f" }} in {10m}. '
        "Processes that touched the memory were killed; the card needs a "
        "reset so that the rows are remapped.",
        runbook="gpu-memory-errors",
        dashboard="gpu",
        fires=(
            Case(
                "two errors",
                {f'hw_errors_total{{{_GPU},error_type="ecc_uncorrectable"}}': "0x20 2x20"},
                "6m",
                _LABELS,
                value=2,
            ),
        ),
        silent=(
            Case("errors from before", {f'hw_errors_total{{{_GPU},error_type="ecc_uncorrectable"}}': "4x40"}, "9m"),
            Case("corrected ones", {f'hw_errors_total{{{_GPU},error_type="ecc_correctable"}}': "0+1x40"}, "9m"),
        ),
    ),
    Rule(
        name="GPURowRemapFailed",
        expr='hw_gpu_remapped_rows{cause="failed"} > 0',
        severity=Severity.PAGE,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} has no spare memory rows left; replace it",
        description="Remapping a bad row failed. NVIDIA replaces cards in this state; take it out of service.",
        runbook="gpu-memory-errors",
        dashboard="gpu",
        fires=(
            Case(
                "failed",
                {f'hw_gpu_remapped_rows{{{_GPU},cause="failed"}}': "0x4 1x20"},
                "3m",
                {**_LABELS, "cause": "failed"},
            ),
        ),
        silent=(Case("rows remapped well", {f'hw_gpu_remapped_rows{{{_GPU},cause="uncorrectable"}}': "3x20"}, "3m"),),
    ),
    Rule(
        name="GPURowRemapPending",
        expr='hw_gpu_remapped_rows{cause="pending"} > 0',
        hold="10m",
        severity=Severity.TICKET,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} needs a reset to remap a bad memory row",
        description="Until the reset the row stays in use.",
        runbook="gpu-memory-errors",
        dashboard="gpu",
        fires=(
            Case(
                "pending",
                {f'hw_gpu_remapped_rows{{{_GPU},cause="pending"}}': "0x4 1x60"},
                "14m",
                {**_LABELS, "cause": "pending"},
            ),
        ),
        silent=(Case("none", {f'hw_gpu_remapped_rows{{{_GPU},cause="pending"}}': "0x60"}, "14m"),),
    ),
    Rule(
        name="GPUThermalSlowdown",
        expr="""
            sum by (gpu, node, gpu_model, reason) (rate(
              hw_gpu_clock_event_seconds_total{reason=~"(sw|hw)_thermal_slowdown|hw_power_brake_slowdown"}[{5m}]
            )) > 0.1
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} is slowed {{ $value | humanizePercentage }} of the time "
        "({{ $labels.reason }})",
        description="Heat or the power supply holds the clocks down, so every request on it is slower: check the "
        "room, the fans and the power feed.",
        runbook="gpu-slowed",
        dashboard="gpu",
        fires=(
            Case(
                "slowed a third of the time",
                # Real seconds: half of each second, whatever the time scale.
                {f'hw_gpu_clock_event_seconds_total{{{_GPU},reason="hw_thermal_slowdown"}}': "0+7.5x60"},
                "14m",
                {**_LABELS, "reason": "hw_thermal_slowdown"},
                value=0.5,
            ),
        ),
        silent=(
            Case(
                "held by the power limit, which is normal",
                {f'hw_gpu_clock_event_seconds_total{{{_GPU},reason="sw_power_cap"}}': "0+7.5x60"},
                "14m",
            ),
        ),
    ),
    Rule(
        name="GPUPowerCapped",
        expr='avg_over_time(hw_gpu_clock_event_active{reason="sw_power_cap"}[{15m}]) > 0.5',
        hold="15m",
        severity=Severity.INFO,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }} is at its power limit "
        "{{ $value | humanizePercentage }} of the time",
        description="Normal for long prefills on a full card. If the limit was lowered on purpose, this is its price.",
        runbook="gpu-slowed",
        dashboard="gpu",
        fires=(
            Case(
                "always at the limit",
                {f'hw_gpu_clock_event_active{{{_GPU},reason="sw_power_cap"}}': "1x160"},
                "35m",
                {**_LABELS, "reason": "sw_power_cap"},
                value=1,
            ),
        ),
        silent=(
            Case(
                "now and then", {f'hw_gpu_clock_event_active{{{_GPU},reason="sw_power_cap"}}': "1 0x9 1 0x150"}, "35m"
            ),
        ),
    ),
    Rule(
        name="GPUMemoryNearlyFull",
        expr="hw_gpu_memory_usage_bytes / hw_gpu_memory_limit_bytes > {gpu_memory_ratio}",
        hold="10m",
        severity=Severity.TICKET,
        summary="GPU {{ $labels.gpu }} on {{ $labels.node }}: memory is {{ $value | humanizePercentage }} full",
        description="Engines reserve their cache at the start, so this does not move with load: the next allocation "
        "outside the cache may fail and take the engine down.",
        runbook="gpu-memory-full",
        dashboard="gpu",
        fires=(
            Case(
                "full",
                {f"hw_gpu_memory_usage_bytes{{{_GPU}}}": "80e9x60", f"hw_gpu_memory_limit_bytes{{{_GPU}}}": "80e9x60"},
                "13m",
                _LABELS,
                value=1,
            ),
        ),
        silent=(
            Case(
                "nine tenths, as vLLM reserves",
                {f"hw_gpu_memory_usage_bytes{{{_GPU}}}": "72e9x60", f"hw_gpu_memory_limit_bytes{{{_GPU}}}": "80e9x60"},
                "13m",
            ),
        ),
    ),
    Rule(
        name="GPUTelemetryGone",
        expr="""
            max by (gpu, node, gpu_model) (hw_gpu_memory_limit_bytes offset {10m})
            unless
            max by (gpu, node, gpu_model) (hw_gpu_memory_limit_bytes)
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary="No telemetry of GPU {{ $labels.gpu }} on {{ $labels.node }} any more",
        description="It was there minutes ago. The card is lost, the driver was unloaded, or the collector cannot "
        "read it.",
        runbook="gpu-lost",
        dashboard="gpu",
        fires=(
            Case(
                "gone",
                {f"hw_gpu_memory_limit_bytes{{{_GPU}}}": "80e9x40 stale"},
                "14m",
                _LABELS,
            ),
        ),
        silent=(Case("still there", {f"hw_gpu_memory_limit_bytes{{{_GPU}}}": "80e9x80"}, "14m"),),
    ),
)
