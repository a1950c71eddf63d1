"""The portable core of the TTL board's firmware, for the tests that step it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from core_rig import Core, build_core


@pytest.fixture(scope="session")
def core_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_core(tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def core(core_library: Path) -> Iterator[Core]:
    core = Core(core_library)
    yield core
    core.reset()
