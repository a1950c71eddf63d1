"""The safety case in hardware/README.md: every test that it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_safety_case_names_exists() -> None:
    """A row whose test was renamed or deleted would promise what nobody checks."""
    text = (TESTS.parent / "hardware" / "README.md").read_text()
    named = set(re.findall(r"(test_\w+\.py)::(test_\w+)", text))
    assert len(named) > 30
    sources = {path.name: path.read_text() for path in TESTS.glob("*/test_*.py")}
    absent = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not re.search(rf"^\s*def {name}\(", sources.get(file, ""), re.MULTILINE)
    ]
    assert not absent
