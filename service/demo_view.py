"""What the demo shows in the terminal: live while it runs, and the summary at the end."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from service.demo import Demo

REFRESH_PER_SECOND = 2


class LiveView:
    """Draws what is coming in, being scored, drifting and alerting until left; nothing if `quiet`."""

    def __init__(self, demo: "Demo", *, quiet: bool) -> None:
        self._demo = demo
        self._live = None if quiet else Live(get_renderable=self.draw, refresh_per_second=REFRESH_PER_SECOND)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def draw(self) -> RenderableType:
        """The picture of this moment."""
        demo = self._demo
        progress = demo.replay.progress
        head = Text.assemble(
            ("Tidegauge ", "bold"),
            "replays a real recording; console, API and metrics: ",
            (demo.service.config.url(), "bold underline"),
        )
        bar = ProgressBar(total=progress.length, completed=progress.position, width=None)
        state = "finished; Ctrl-C ends" if progress.done else f"{progress.position:.0f} of {progress.length:.0f} s"
        return Group(
            head,
            Columns([bar, Text(state, style="dim")]),
            Columns([self._incoming(), self._scored()], equal=False),
            self._drifting(),
            self._alerting(),
        )

    def _incoming(self) -> RenderableType:
        counts = self._demo.service.reads.query("counts")[0]
        table = _plain(("", "left"), ("", "right"))
        for name in ("requests", "failed_requests", "spans", "engine_ticks", "gpu_ticks"):
            table.add_row(name.replace("_", " "), f"{counts[name]:,}")
        return Panel(table, title="coming in", title_align="left")

    def _scored(self) -> RenderableType:
        table = _plain(("evaluator", "left"), ("scored", "right"), ("mean", "right"))
        for row in self._demo.service.reads.query("evaluator_means"):
            table.add_row(row["evaluator"], f"{row['n']:,}", f"{row['mean']:.3f}")
        return Panel(table, title="scored", title_align="left")

    def _drifting(self) -> RenderableType:
        return Panel(_findings(self._demo.findings()), title="drifting", title_align="left")

    def _alerting(self) -> RenderableType:
        demo = self._demo
        if demo.alerts is None:
            return Panel(
                demo.alerts_missing or "rules are evaluated as the recording goes on",
                title="alerting",
                title_align="left",
            )
        return Panel(_alerts(demo.alerts), title="alerting", title_align="left")


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the summary of a run for people."""
    console.print()
    console.print(
        f"[bold]{summary['requests']:,}[/] requests ({summary['failed_requests']} failed) "
        f"in {summary['spans']:,} spans, [bold]{summary['scores']:,}[/] scores, "
        f"{summary['engine_ticks']:,} looks at the engine, {summary['gpu_ticks']:,} at a GPU"
    )
    console.print("\n[bold]What drifted[/]")
    console.print(_findings(summary["findings"]))
    console.print("\n[bold]What would have paged[/]")
    console.print(summary["alerts_missing"] if summary["alerts"] is None else _alerts(summary["alerts"]))
    console.print("\n[bold]Time to first token[/]")
    for row in summary["latency"]:
        times = row["time_to_first_token_s"]
        console.print(
            f"{row['model']}: median {times['median_of_other_minutes']:.3f} s, "
            f"[bold]{times['median_in_worst_minute']:.1f} s[/] in the minute from {row['worst_minute'][11:19]} UTC; "
            f"up to {_number(row['peak_requests_waiting'])} requests waited, "
            f"KV cache at most {_percent(row['peak_kv_cache_usage_ratio'])} full"
        )


def _findings(found: Iterable[Mapping[str, Any]]) -> RenderableType:
    table = _plain(
        ("signal", "left"),
        ("slice", "left"),
        ("state", "left"),
        ("since", "left"),
        ("effect", "right"),
        ("95 % interval", "right"),
    )
    for item in found:
        low, high = item["interval"]
        table.add_row(
            item["signal"],
            _slice(item["slice"]),
            item["state"],
            str(item["start"])[11:19],
            f"{item['effect']:+.3f}",
            f"{low:+.3f} … {high:+.3f}",
        )
    return table if table.row_count else Text("nothing", style="dim")


def _alerts(alerts: Iterable[Mapping[str, Any]]) -> RenderableType:
    parts: list[RenderableType] = []
    for item in alerts:
        ended = item["ended"][11:19] if item["ended"] else "now"
        style = "bold red" if item["severity"] == "page" else "bold"
        when = f"{item['started'][11:19]} to {ended:<9}{item['severity']:<8}"
        parts.append(Text.assemble(when, (item["name"], style)))
        parts.append(Padding(Text(item["summary"] or "", style="dim"), (0, 0, 0, 4)))
    return Group(*parts) if parts else Text("nothing", style="dim")


def _slice(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "all"
    return str(value)


def _plain(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(name for name, _ in columns), header_style="dim")
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
