"""Reference pages are as the catalog says."""

from pathlib import Path

import pytest

from catalog.docs import metrics_page
from catalog.family import Family, families

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_of_metrics_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), "run: python -m catalog.docs"


@pytest.mark.parametrize("family", families().values(), ids=families().keys())
def test_every_family_has_its_row_once(family: Family) -> None:
    row = next(line for line in metrics_page().splitlines() if line.startswith(f"| `{family.name}` | {family.kind} |"))
    assert row.count(f"`{family.name}`") == 1
    assert all(f"`{label}`" in row for label in (*family.labels, *family.optional_labels))
