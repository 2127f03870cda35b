"""Whether a change made training slower: the benchmarks of two checkouts in turn on one machine.

    git worktree add ../before COMMIT
    python -m benchmarks.against ../before --rounds 3 --name since_COMMIT

Every measurement is a process of one checkout that runs that checkout's own ``benchmarks`` and package; a round goes
there and back (other, this, this, other), so that what else the machine does meets both. Each of them is already a
ratio to the plain step or pass of the same process; what counts is the median of this checkout's over the other's.
Writes ``benchmarks/results/against_<name>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import write_results

_HERE = Path(__file__).resolve().parent.parent
_HOOKS = """
import json, sys, torch
from benchmarks import hooks
torch.set_num_threads(1)
name, make = sys.argv[1], getattr(hooks, sys.argv[1])
rows = hooks.benchmark_model(name, make, int(sys.argv[2]))
ratios = {row["variant"]: row["cpu_ratio_of_medians"] for row in rows if row["variant"] != "plain"}
print(json.dumps(ratios))
"""
_SETUP = """
import json, time, torch
from benchmarks import setup
records = []
setup.write_results = lambda name, result: records.append(result)
setup.main()
print(json.dumps({"ratio": records[0]["setup_s"] / records[0]["forward_s"]}))
"""


def _commands(rounds_of_hooks: int, steps: int, images: int) -> dict[str, tuple[int, list[str], tuple[str, ...]]]:
    """Return threads, arguments of Python and the keys that count, by the name of the measurement."""
    found: dict[str, tuple[int, list[str], tuple[str, ...]]] = {}
    for network in ("resnet18", "bert"):
        arguments = ["-c", _HOOKS, network, str(rounds_of_hooks)]
        found[f"hooks {network}"] = (1, arguments, ("hooks", "hooks_functions"))
    for case in ("resnet18 64x64 batch 16", "resnet50 64x64 batch 8", "mobilenet_v2 96x96 batch 8"):
        arguments = ["benchmarks/step.py", "--threads", "2", "--steps", str(steps), "--time", case]
        found[f"step {case}"] = (2, arguments, ("ratio", "ratio_of_processor_time"))
    arguments = ["-m", "benchmarks.range_init", "--child", "mixed_min_max", "--images", str(images), "--threads", "1"]
    found["range_init resnet50"] = (1, arguments, ("ratio", "processor_ratio"))
    found["setup resnet50"] = (2, ["-c", _SETUP], ("ratio",))
    return found


def measure(checkout: Path, threads: int, arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a checkout.

    Raises:
        subprocess.CalledProcessError: The measurement failed; what it said stands in the terminal.
    """
    surroundings = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", *arguments]
    run = subprocess.run(command, cwd=checkout, env=surroundings, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def commit(checkout: Path) -> str:
    """Return the short name of the commit that a checkout stands on."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="checkout to compare with")
    parser.add_argument("--name", required=True, help="of the file of results")
    parser.add_argument("--rounds", type=int, default=3, help="there and back")
    parser.add_argument("--only", default="", help="measurements whose name holds this")
    parser.add_argument("--hooks-rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    other = options.other.resolve()
    if not (other / "benchmarks").is_dir():
        parser.error(f"{options.other} is no checkout of this project: it holds no folder 'benchmarks'")
    checkouts = {"other": other, "this": _HERE}
    commands = _commands(options.hooks_rounds, options.steps, options.images)
    ratios: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.rounds):
        for name, (threads, arguments, keys) in commands.items():
            if options.only not in name:
                continue
            for which in ("other", "this", "this", "other"):
                found = measure(checkouts[which], threads, arguments)
                for key in keys:
                    taken = ratios.setdefault(f"{name}: {key}", {"other": [], "this": []})
                    taken[which].append(round(found[key], 4))
    rows = {}
    for name, taken in ratios.items():
        medians = {which: statistics.median(values) for which, values in taken.items()}
        change = round(medians["this"] / medians["other"], 4)
        rows[name] = {"change": change, "medians": medians, "ratios": taken}
        sys.stderr.write(f"{name}: {change}\n")
    commits = {which: commit(checkout) for which, checkout in checkouts.items()}
    write_results(f"against_{options.name}", {"commits": commits, "rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
