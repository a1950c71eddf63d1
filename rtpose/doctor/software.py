"""Versions, and where models run."""

import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rtpose.doctor.trial import Trial, Trials
from rtpose.finding import Finding

_PACKAGES: Final = (
    "rtpose",
    "numpy",
    "numba",
    "onnxruntime-gpu",
    "onnxruntime",
    "opencv-python",
    "pyzmq",
    "pydantic",
    "pyserial",
)

#: Packages that install the same files: the last one installed overwrites the other.
_RIVALS: Final = (
    ("onnxruntime-gpu", "onnxruntime"),
    ("opencv-python", "opencv-python-headless"),
    ("opencv-python", "opencv-contrib-python"),
)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def packages() -> Finding:
    """Return the versions of what rtpose stands on."""
    names = dict.fromkeys((*_PACKAGES, *(name for pair in _RIVALS for name in pair)))
    found = {name: number for name in names if (number := _version(name)) is not None}
    shown = {name: number for name, number in found.items() if name != "rtpose"}
    text = f"rtpose {found.get('rtpose')}, Python {platform.python_version()}; "
    text += ", ".join(f"{name} {number}" for name, number in shown.items())
    return judge_packages(found, text)


def judge_packages(found: Mapping[str, str], text: str) -> Finding:
    """Return the finding for installed packages, by name."""
    for pair in _RIVALS:
        if all(name in found for name in pair):
            both = " and ".join(pair)
            advice = f"{both} overwrite each other: pip uninstall {' '.join(pair)}, then install "
            return Finding("versions", "problem", text, f"{advice}rtpose again", found)
    return Finding("versions", "good", text, facts=found)


def try_providers() -> Trials:
    """Start trying where models run."""
    trials = [Trial("providers"), Trial("provider", "cpu"), Trial("provider", "cuda")]
    return Trials(trials, lambda results: judge_providers(*results, has_gpu=_has_gpu()))


def _has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU with a driver."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def judge_providers(
    names: Mapping[str, Any], cpu: Mapping[str, Any], cuda: Mapping[str, Any], *, has_gpu: bool
) -> Sequence[Finding]:
    """Return the findings for ONNX Runtime's providers.

    Parameters
    ----------
    names, cpu, cuda : mapping
        Results of the trials.
    has_gpu : bool
        Whether there is a GPU that CUDA should use.
    """
    if "error" in cpu:
        advice = "install rtpose again, into an environment of its own"
        return [Finding("model on cpu", "problem", cpu["error"], advice)]
    known = ", ".join(name.removesuffix("ExecutionProvider") for name in names.get("providers", ()))
    text = f"demo model {cpu['median_ms']:.2f} ms, verified (ONNX Runtime built for {known})"
    findings = [Finding("model on cpu", "good", text, facts={**names, **cpu})]
    if "error" not in cuda:
        text = f"demo model {cuda['median_ms']:.2f} ms, verified"
        findings.append(Finding("model on cuda", "good", text, facts=cuda))
    elif has_gpu:
        advice = 'until that is solved a rig with provider = "cuda" does not start'
        findings.append(Finding("model on cuda", "problem", cuda["error"], advice, cuda))
    else:
        text = "no NVIDIA GPU with a driver here; rigs run on the cpu"
        findings.append(Finding("model on cuda", "good", text, facts=cuda))
    return findings
