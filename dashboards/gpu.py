"""What the cards do, and what holds them back."""

from dashboards.grafana import GREEN, RED, Dashboard, Row, Variable, state_timeline, timeseries
from dashboards.queries import GPU, per_second

CARD = "{{node}} {{gpu}}"


def by_card(metric: str, *more: str) -> str:
    return f"max by ({', '.join(['node', 'gpu', *more])}) ({metric}{GPU})"


BOUND = Row(
    "What the card is bound by",
    [
        timeseries(
            "What the card is bound by",
            "Tensor high: compute-bound (prefill). DRAM high: memory-bound (decode). Both low with SM active high: "
            "small batches or launch overhead. Utilisation alone says 100 % for all of them.",
            {
                "SM active " + CARD: by_card("hw_gpu_sm_active_ratio"),
                "tensor " + CARD: by_card("hw_gpu_tensor_active_ratio"),
                "DRAM " + CARD: by_card("hw_gpu_dram_active_ratio"),
            },
            width=12,
            next="Engine / Tokens",
        ),
        timeseries(
            "Utilisation",
            "Share of time in which any kernel ran, or memory was touched. Low under load: the host starves it.",
            {
                "kernels " + CARD: by_card("hw_gpu_utilization_ratio"),
                "memory " + CARD: by_card("hw_gpu_memory_utilization_ratio"),
                "SM occupancy " + CARD: by_card("hw_gpu_sm_occupancy_ratio"),
            },
            width=12,
            next="What the card is bound by",
        ),
    ],
)

POWER = Row(
    "Power, heat and clocks",
    [
        timeseries(
            "Power",
            "At its limit the card lowers its clocks. Next: the reasons.",
            {CARD: by_card("hw_power_watts"), "limit " + CARD: by_card("hw_power_limit_watts")},
            next="Clocks held down",
        ),
        timeseries(
            "Energy per generated token",
            "Of all chosen cards over all engines' tokens: idle cards and small batches make it rise.",
            f"sum(rate(hw_energy_joules_total{GPU}[$__rate_interval]))"
            " / sum(rate(llm_engine_generation_tokens_total[$__rate_interval]))",
            legend="energy per token",
            next="Engine / Queue",
        ),
        timeseries(
            "Temperature",
            "Memory is the hotter one. Near the limit the card slows down; look at airflow and neighbours.",
            by_card("hw_temperature_celsius", "sensor"),
            legend="{{sensor}} " + CARD,
            warn=80,
            bad=90,
            next="Clocks held down",
        ),
        timeseries(
            "Clocks",
            "A fall under load has a reason. Next: which.",
            by_card("hw_gpu_clock_hertz", "domain"),
            legend="{{domain}} " + CARD,
            next="Clocks held down",
        ),
        timeseries(
            "Clocks held down",
            "Share of time for which each reason held the clocks down. Thermal and hardware reasons need hands.",
            per_second("hw_gpu_clock_event_seconds_total", "node, gpu, reason", GPU),
            legend="{{reason}} " + CARD,
            next="Temperature",
        ),
        state_timeline(
            "Reasons now",
            "The reasons as they were at each reading; short ones show only as time held down.",
            by_card("hw_gpu_clock_event_active", "reason") + " > 0",
            legend="{{reason}} " + CARD,
            states={0: ("free", GREEN), 1: ("held", RED)},
            next="Power",
        ),
    ],
)

HEALTH = Row(
    "Memory, links and errors",
    [
        timeseries(
            "Memory in use",
            "An engine takes what it is given at its start; growth after that is a leak or a neighbour.",
            by_card("hw_gpu_memory_usage_bytes") + " / " + by_card("hw_gpu_memory_limit_bytes"),
            legend=CARD,
            warn=0.95,
            bad=0.99,
            next="Processes",
        ),
        timeseries(
            "Links",
            "PCIe and NVLink. Steady PCIe traffic under decode means weights or cache are offloaded.",
            per_second("hw_gpu_io_bytes_total", "node, gpu, link, direction", GPU),
            legend="{{link}} {{direction}} " + CARD,
            next="What the card is bound by",
        ),
        timeseries(
            "Processes",
            "Processes with a context on the card. One more than expected shares its time and memory.",
            by_card("hw_gpu_processes"),
            legend=CARD,
            next="Memory in use",
        ),
        timeseries(
            "Errors",
            "Uncorrectable ECC errors stop work; correctable ones that repeat announce them. Next: XIDs.",
            f"sum by (node, gpu, error_type) (increase(hw_errors_total{GPU}[$__rate_interval]))",
            legend="{{error_type}} " + CARD,
            bad=1,
            next="XID events",
        ),
        timeseries(
            "XID events",
            "What the driver reported, by code. Cause `application` is a crash; `hardware` needs the card drained.",
            f"sum by (node, gpu, xid, cause) (increase(hw_gpu_xid_events_total{GPU}[$__rate_interval]))",
            legend="XID {{xid}} ({{cause}}) " + CARD,
            bad=1,
            next="Remapped rows",
        ),
        timeseries(
            "Remapped rows",
            "Pending needs a reset of the card, failed its replacement.",
            by_card("hw_gpu_remapped_rows", "cause"),
            legend="{{cause}} " + CARD,
            next="Errors",
        ),
    ],
)

DASHBOARD = Dashboard(
    key="gpu",
    description="What the cards do, what bounds them, and what goes wrong.",
    variables=[Variable("node", "hw_power_watts", "node"), Variable("gpu", "hw_power_watts", "gpu")],
    rows=[BOUND, POWER, HEALTH],
)
