"""What an installed wheel holds; the tests elsewhere run on the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rtpose.zoo import zoo_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the unpacked wheel lies in."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_finds_every_model_by_name(installed: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "rtpose", "list", "models", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert listed.returncode == 0, listed.stderr
    models = json.loads(listed.stdout)["models"]
    assert set(models) == set(zoo_models())
    for model in models.values():
        assert model["median_ms"] > 0
        assert model["mean_error_px"] > 0
    from_wheel = subprocess.run(
        [sys.executable, "-c", "from rtpose.zoo import zoo_models; print(*zoo_models().values())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert all(Path(file).is_relative_to(installed) for file in from_wheel.stdout.split())


def test_a_wheel_holds_packages_and_no_tests(installed: Path) -> None:
    top = {entry.name for entry in installed.iterdir() if not entry.name.endswith(".dist-info")}
    assert top == {"rtpose", "rtpose_hardware", "rtpose_train"}
    assert not list((installed / "rtpose" / "zoo").glob("*.p[ty]"))


def test_a_wheel_builds_the_firmware_that_it_came_with(installed: Path, tmp_path: Path) -> None:
    tools = ("make", "avr-gcc", "avr-objcopy", "avr-size")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        message = f"the firmware cannot be built here: {', '.join(missing)} missing"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    sources = {path for path in installed.rglob("*") if path.is_file()}
    built = subprocess.run(
        [sys.executable, "-m", "rtpose", "flash", "--build-only"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "rtpose-ttl-1000000.hex").read_text().startswith(":")
    assert {path for path in installed.rglob("*") if path.is_file()} == sources
    assert not (installed / "rtpose_hardware" / "firmware" / "host").exists()
