"""Is there room for what comes; looked at once a minute, since its windows are hours long."""

from alerts.rule import Case, Rule, Severity

_FREE = "tidegauge_store_disk_free_bytes"

RULES = (
    Rule(
        name="TidegaugeDiskFillsUp",
        # Six hours of history are asked for, so that the first minutes of a run are no forecast of a day.
        expr="""
            tidegauge_store_disk_free_bytes
            and
            predict_linear(tidegauge_store_disk_free_bytes[{6h}], {24h in seconds}) < 0
            and
            tidegauge_store_disk_free_bytes offset {6h}
        """,
        hold="30m",
        severity=Severity.TICKET,
        summary="The disk is full within a day at this speed; {{ $value | humanize1024 }}B are free",
        description="Shorten the retention, sample content, or give the data directory more room.",
        runbook="disk-full",
        dashboard="itself",
        fires=(
            Case(
                "100 GB goes within ten hours",
                {_FREE: "100e9-16e7x450"},
                "7h",
                value=100e9 - 16e7 * 420,
                every="1m",
            ),
        ),
        silent=(
            Case("steady", {_FREE: "100e9x450"}, "7h", every="1m"),
            Case("it fell in its first minutes", {_FREE: "100e9-16e8x50"}, "39m", every="1m"),
        ),
    ),
    Rule(
        name="TidegaugeDiskAlmostFull",
        expr="tidegauge_store_disk_free_bytes < {disk_free_bytes}",
        hold="1m",
        severity=Severity.PAGE,
        summary="Only {{ $value | humanize1024 }}B are free for Tidegauge's data; soon nothing is stored",
        description="Commits fail when it is full, and exporters drop what they cannot deliver.",
        runbook="disk-full",
        dashboard="itself",
        fires=(
            Case(
                "half of the threshold is left",
                {_FREE: "{disk_free_bytes*0.5}x10"},
                "4m",
                value=1 << 29,
                every="1m",
            ),
        ),
        silent=(Case("plenty", {_FREE: "{disk_free_bytes*20}x10"}, "4m", every="1m"),),
    ),
)
