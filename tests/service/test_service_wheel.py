"""The wheel holds all that runs: installed alone, it serves from an empty directory."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.local_prometheus import free_port
from tests.binaries import wait_for

ROOT = Path(__file__).parents[2]
ROOMS = ("catalog", "store", "collector", "evals", "dashboards", "alerts", "service")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; its dependencies are those of the tests' own environment."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Behind the wheel's own files; paths named in that folder's .pth files, the editable install's, are not followed.
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def serving(installed: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`tidegauge serve` in an empty directory, and where it listens."""
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("LISTEN", "OTLP_GRPC", "OTLP_HTTP")}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TIDEGAUGE"))}
    process = subprocess.Popen(
        [installed / "bin" / "tidegauge", "serve"],
        cwd=tmp_path,
        env=inherited | {f"TIDEGAUGE_{name}": address for name, address in ports.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, f"http://{ports['LISTEN']}"
    process.kill()
    process.communicate()


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


@pytest.mark.parametrize(
    "file",
    [
        "catalog/families/engine.toml",
        "catalog/engines/vllm.toml",
        "catalog/dialects/opentelemetry.toml",
        "store/migrations/0001_initial.sql",
        "store/queries/pending_requests.sql",
        "alerts/runbooks/queue-long.md",
        "service/console/templates/base.html",
        "service/recordings/production/manifest.json",
        "service/tidegauge.yaml",
    ],
)
def test_what_is_read_at_run_time_is_in_the_wheel(wheel: Path, file: str) -> None:
    assert zipfile.ZipFile(wheel).getinfo(file).file_size > 0


def test_the_installed_files_are_the_wheels_own(installed: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(ROOMS)}; print({', '.join(f'{room}.__file__' for room in ROOMS)})"
    places = run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert [place for place in places if not Path(place).is_relative_to(installed)] == []


def test_it_serves_from_an_empty_directory_and_ends_when_told(
    serving: tuple["subprocess.Popen[str]", str], tmp_path: Path
) -> None:
    process, url = serving

    def ready() -> bool:
        assert process.poll() is None, process.communicate()[1]
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(json.load(answer)["status"] == "ready")

    wait_for("ready", ready, 60)
    for path in ("/", "/metrics", "/runbooks/queue-long"):
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in log) == (0, False), log
    assert [path.name for path in tmp_path.iterdir()] == ["tidegauge-data"]
