"""What was acknowledged is there after `kill -9`, once."""

import random
import time
from pathlib import Path

import pytest

from tests.e2e import span_senders
from tests.e2e.service_kit import RunningService

pytestmark = pytest.mark.timeout(400)
KILLS = 5
SENDERS = 3
SEED = 20261123


def test_five_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    moments = random.Random(SEED)
    service = RunningService(tmp_path)
    service.start()
    senders = span_senders.start(service.otlp_url, SENDERS)
    for _ in range(KILLS):
        time.sleep(moments.uniform(0.3, 1.5))
        service.kill()
        service.start()
    time.sleep(0.5)
    acknowledged = span_senders.stop(senders)
    service.kill()

    stored = span_senders.stored(service.data)
    assert len(acknowledged) > KILLS * span_senders.SPANS_PER_BATCH, "there was no load to speak of"
    assert sum(sender.resent for sender in senders) >= KILLS, "no kill hit a sender"
    assert acknowledged - set(stored) == set()
    assert len(stored) == len(set(stored))
