"""Run the benchmarks: all of them, or one.

python -m benchmarks [name ...] [--json FILE]
"""

import argparse
import json
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import benchmarks


def main() -> None:
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names)}")
    machine = benchmarks.machine()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results: dict[str, Any] = {"machine": machine}
    for name in options.names or names:
        module = import_module(f"benchmarks.{name}")
        print(f"\n=== {name}")
        results[name] = module.run()
        if hasattr(module, "show"):
            module.show(results[name])
        else:
            print(json.dumps(results[name], indent=2))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
