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
    Rule(
        name="TidegaugeStoreRefuses",
        expr='max by (trouble) (tidegauge_store_trouble{trouble!="corrupt"}) == 1',
        hold="1m",
        severity=Severity.PAGE,
        summary="Tidegauge stores nothing: {{ $labels.trouble }}",
        description="Whatever comes is answered with 503 or UNAVAILABLE, and exporters keep it for minutes at most. "
        "/readyz says what is wrong; it ends by itself when the disk takes data again.",
        runbook="store-refuses",
        dashboard="itself",
        fires=(
            Case(
                "the reserve is reached",
                {'tidegauge_store_trouble{trouble="disk_low"}': "0x4 1x20"},
                "10m",
                labels={"trouble": "disk_low"},
                value=1,
                every="1m",
            ),
        ),
        silent=(
            Case(
                "room is made at once", {'tidegauge_store_trouble{trouble="disk_low"}': "0x4 1 0x20"}, "10m", every="1m"
            ),
            Case("blocks are damaged", {'tidegauge_store_trouble{trouble="corrupt"}': "1x20"}, "10m", every="1m"),
        ),
    ),
    Rule(
        name="TidegaugeStoreDamaged",
        expr='max (tidegauge_store_trouble{trouble="corrupt"}) == 1',
        severity=Severity.PAGE,
        summary="Blocks of Tidegauge's database are damaged",
        description="What stands in them cannot be read; the rest can, and new rows are stored.",
        runbook="store-damaged",
        dashboard="itself",
        fires=(
            Case(
                "a block is damaged",
                {'tidegauge_store_trouble{trouble="corrupt"}': "0x4 1x20"},
                "10m",
                value=1,
                every="1m",
            ),
        ),
        silent=(Case("the disk is full", {'tidegauge_store_trouble{trouble="disk_full"}': "1x20"}, "10m", every="1m"),),
    ),
    Rule(
        name="TidegaugeStoreAtItsBound",
        expr='sum (increase(tidegauge_store_deleted_rows_total{reason="size"}[{6h}])) > 0',
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} rows were deleted before their time to keep within store.retention.max_bytes",
        description="The database holds less history than its retention says. Raise the bound, shorten the retention, "
        "or capture less content.",
        runbook="disk-full",
        dashboard="itself",
        fires=(
            Case(
                "the bound is reached",
                {'tidegauge_store_deleted_rows_total{table="spans",reason="size"}': "0x100 1000x400"},
                "5h",
                value=1000,
                every="1m",
            ),
        ),
        silent=(
            Case(
                "only what is old goes",
                {'tidegauge_store_deleted_rows_total{table="spans",reason="age"}': "0+10x400"},
                "5h",
                every="1m",
            ),
        ),
    ),
)
