"""What is generated is current, deterministic, and passes Prometheus' and Alertmanager's own checks."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from alerts import promtool, reference, runbook
from alerts.all import rules
from alerts.build import GENERATED, build, check, generated_rules, render
from alerts.rule import Rule, Severity
from alerts.scale import UnknownPlaceholderError, fill, window
from alerts.settings import AlertSettings, Receiver, Slo
from catalog.duration import seconds
from catalog.promql import check_expression

ROOT = Path(__file__).parents[2]
DEFAULT = AlertSettings()
EVERY_RULE = [pytest.param(rule, id=rule.name) for rule in rules(DEFAULT)]


def test_committed_files_are_current() -> None:
    assert check(DEFAULT, ROOT / "deploy") == []


def test_documented_rules_are_current() -> None:
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    assert page == reference.updated(page, DEFAULT)


def test_every_rule_has_a_runbook_with_all_sections() -> None:
    assert runbook.check(rules(DEFAULT), ROOT / "alerts/runbooks") == []


def test_runbook_without_a_section_and_a_missing_one_are_named(tmp_path: Path) -> None:
    first, second = rules(DEFAULT)[:2]
    (tmp_path / f"{first.runbook}.md").write_text(runbook.skeleton(first).replace("## Look first", "## Look"))
    found = runbook.check([first, second], tmp_path)
    assert [problem.partition(":")[0] for problem in found] == [f"{second.runbook}.md", f"{first.runbook}.md"]


def test_building_twice_gives_the_same_bytes_and_leaves_nothing_over(tmp_path: Path) -> None:
    left_over = tmp_path / "prometheus/rules/gone.yml"
    own = tmp_path / "prometheus/rules/own.yml"
    left_over.parent.mkdir(parents=True)
    left_over.write_text(f"# {GENERATED}\n")
    own.write_text("groups: []\n")
    before = {path: path.read_bytes() for path in build(DEFAULT, tmp_path)}
    assert {path: path.read_bytes() for path in build(DEFAULT, tmp_path)} == before
    assert (left_over.exists(), own.exists(), check(DEFAULT, tmp_path)) == (False, True, [])


def test_check_names_each_file_that_is_missing_or_edited(tmp_path: Path) -> None:
    edited, missing, *_ = build(DEFAULT, tmp_path)
    edited.write_text(edited.read_text() + "# by hand\n")
    missing.unlink()
    assert [problem.split(";")[0] for problem in check(DEFAULT, tmp_path)] == [
        f"{edited.relative_to(tmp_path)}: out of date",
        f"{missing.relative_to(tmp_path)}: missing",
    ]


def test_first_line_of_every_file_says_what_made_it() -> None:
    assert {text.splitlines()[0] for text in render(DEFAULT).values()} == {f"# {GENERATED}"}


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_expression_names_only_what_the_catalog_declares(rule: Rule) -> None:
    assert check_expression(fill(rule.expr, DEFAULT)) == []


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_rule_has_a_case_that_fires_and_one_that_is_silent(rule: Rule) -> None:
    assert (len(rule.fires) > 0, len(rule.silent) > 0) == (True, True)


def test_names_of_rules_are_unique() -> None:
    assert [name for name, count in Counter(rule.name for rule in rules(DEFAULT)).items() if count > 1] == []


def test_every_alert_leads_to_runbook_dashboard_and_requests() -> None:
    links = {"runbook_url", "dashboard_url", "requests_url", "summary", "description"}
    assert {rule.name: set(rule.annotations) for rule in generated_rules(DEFAULT)} == {
        rule.name: links for rule in rules(DEFAULT)
    }


def test_queue_and_first_token_page_within_two_minutes() -> None:
    chosen = [rule for rule in rules(DEFAULT) if rule.name in ("LLMEngineQueueLong", "LLMTimeToFirstTokenHigh")]
    assert [(rule.severity, "{1m}" in rule.expr, 60 + seconds(rule.hold)) for rule in chosen] == [
        (Severity.PAGE, True, 120),
        (Severity.PAGE, True, 90),
    ]


def test_promtool_and_amtool_accept_the_committed_files() -> None:
    assert promtool.test(ROOT / "deploy") == []


def test_cases_hold_with_other_thresholds_and_a_shorter_time(tmp_path: Path) -> None:
    settings = AlertSettings.model_validate(
        {
            "time_scale": 0.1,
            "slos": [],
            "thresholds": {
                "queue_seconds": 33,
                "time_to_first_token_seconds": 0.7,
                "inter_token_seconds": 1,
                "minimum_requests": 7,
                "minimum_scores": 90,
                "disk_free_bytes": 5e9,
            },
        }
    )
    build(settings, tmp_path)
    for theme in ("drift", "gpu", "itself"):  # they use none of these thresholds, and promtool takes its time
        (tmp_path / f"prometheus/tests/{theme}.yml").unlink()
    assert promtool.test(tmp_path) == []


def test_wrong_case_is_reported_with_the_rule(tmp_path: Path) -> None:
    build(DEFAULT, tmp_path)
    for path in (tmp_path / "prometheus/tests").glob("*.yml"):
        if path.stem != "drift":
            path.unlink()
    rules_file = tmp_path / "prometheus/rules/drift.yml"
    rules_file.write_text(rules_file.read_text().replace("tidegauge_drift_active == 1", "tidegauge_drift_active == 2"))
    (problem,) = promtool.test(tmp_path)
    assert "LLMDriftConfirmed fires: confirmed" in problem


def test_missing_binary_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        promtool.BinaryMissingError, match=r"promtool is not on the PATH; .* apt-get install prometheus"
    ):
        promtool.test(ROOT / "deploy")


def test_receivers_of_people_stand_beside_the_incident_record(tmp_path: Path) -> None:
    settings = AlertSettings.model_validate(
        {
            "webhook_token_file": "/etc/webhook.key",
            "receivers": [
                {"name": "oncall", "pagerduty": {"routing_key_file": "/etc/pagerduty.key"}},
                {
                    "name": "team",
                    "severities": ["page", "ticket"],
                    "slack": {"api_url_file": "/etc/slack.url", "channel": "#llm"},
                    "email": {
                        "to": "team@example.org",
                        "sender": "tidegauge@example.org",
                        "smarthost": "mail.example.org:587",
                        "username": "tidegauge",
                        "password_file": "/etc/mail.key",
                    },
                    "webhook": {"url": "https://example.org/hook", "token_file": "/etc/hook.key"},
                },
            ],
        }
    )
    build(settings, tmp_path)
    route = yaml.safe_load((tmp_path / "alertmanager/alertmanager.yml").read_text())["route"]
    assert [(child["receiver"], child.get("matchers")) for child in route["routes"]] == [
        ("tidegauge", None),
        ("oncall", ['severity=~"page"']),
        ("team", ['severity=~"page|ticket"']),
    ]
    assert promtool.run_tool(["amtool", "check-config", str(tmp_path / "alertmanager/alertmanager.yml")]) == ""


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [
        pytest.param("rate(x[{2m}]) > {queue_seconds*2}", 0.1, "rate(x[12s]) > 4", id="window_and_threshold"),
        pytest.param("predict_linear(x[{6h}], {24h in seconds})", 0.1, "predict_linear(x[36m], 8640)", id="number"),
        pytest.param('x{a="b"} {{ $labels.a }}', 0.1, 'x{a="b"} {{ $labels.a }}', id="not_a_placeholder"),
        pytest.param("x[{15s}]", 0.05, "x[1s]", id="never_below_a_second"),
    ],
)
def test_placeholders_are_filled(text: str, scale: float, expected: str) -> None:
    assert fill(text, AlertSettings(time_scale=scale)) == expected


def test_unknown_threshold_is_an_error() -> None:
    with pytest.raises(
        UnknownPlaceholderError, match=r"\{queue_second\} names no threshold; there are .*queue_seconds"
    ):
        fill("x > {queue_second}", DEFAULT)


def test_zero_hold_stays_zero() -> None:
    assert window("0s", AlertSettings(time_scale=0.05)) == "0s"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: Slo(name="a", indicator="duration", threshold_seconds=3),
            r"3\.0 is no bucket's bound; the nearest is 2\.56",
            id="threshold_between_buckets",
        ),
        pytest.param(
            lambda: Slo(name="a", threshold_seconds=3), "means nothing for errors", id="errors_with_threshold"
        ),
        pytest.param(
            lambda: Receiver(name="a"), "has none of pagerduty, slack, email, webhook", id="receiver_without_way"
        ),
        pytest.param(
            lambda: AlertSettings(slos=(Slo(name="a"), Slo(name="a"))), "slos: a given twice", id="two_slos_of_a_name"
        ),
        pytest.param(
            lambda: AlertSettings.model_validate({"slo": []}), "Extra inputs are not permitted", id="unknown_key"
        ),
    ],
)
def test_bad_settings_are_refused_with_the_reason(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValidationError, match=message):
        make()


def test_objective_can_be_for_one_service(tmp_path: Path) -> None:
    slo = Slo(name="support_wait", indicator="duration", objective=0.9, threshold_seconds=0.64, service="support")
    made = [rule for rule in generated_rules(AlertSettings(slos=(slo,))) if rule.labels.get("slo") == "support_wait"]
    # 14.4 times a budget of 10 % is more than all requests, so there is no fast burn to page on.
    assert [rule.name for rule in made] == ["LLMSloSupportWaitBurnSlow", "LLMSloSupportWaitBurnTrickle"]
    assert all('service="support",le="0.64"' in rule.expr and check_expression(rule.expr) == [] for rule in made)
