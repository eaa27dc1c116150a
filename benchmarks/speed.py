"""Run every speed benchmark, each in a process of its own, and print the table of ratios.

What cannot run here, for want of a peer, is left out with a line that says so.

    python benchmarks/speed.py --size small --out runs/speed
    python benchmarks/speed.py --size full --out benchmarks/results
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from common import add_out
from tables import speed_table

HERE = Path(__file__).parent
SCRIPTS = (
    "dense_kernel",
    "classification_ensemble",
    "posteriors",
    "finite_laplace",
    "evaluation",
    "scaling",
)
NEEDS = {"finite_laplace": ("torch", "laplace")}
ARGUMENTS = {
    "full": {
        "dense_kernel": "--num-points 4000 --num-features 784 --rounds 21",
        "posteriors": "--num-train 1000 --num-chain-train 200 --num-warmup 150",
        "finite_laplace": "--num-train 1000",
    },
    "small": {
        "dense_kernel": "--num-points 500 --num-features 64 --rounds 5",
        "classification_ensemble": "--num-train 200 --num-draws 32 --max-steps 50",
        "posteriors": "--num-train 200 --num-chain-train 60 --num-warmup 100 --num-draws 100",
        "finite_laplace": "--num-train 100",
        "evaluation": "--num-draws 100 --num-points 1000",
        "scaling": "--largest 1000",
    },
}


def main():
    """Run what can be run; say what cannot, and why."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(ARGUMENTS), default="small")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    add_out(parser, default="runs/speed")
    options = parser.parse_args()
    left_out, failed = {}, []
    for name in options.only:
        missing = [m for m in NEEDS.get(name, ()) if importlib.util.find_spec(m) is None]
        if missing:
            left_out[name] = f"{', '.join(missing)} cannot be imported"
            continue
        print(f"\n==> {name}", flush=True)
        arguments = ARGUMENTS[options.size].get(name, "").split()
        command = [sys.executable, str(HERE / f"{name}.py"), *arguments, "--out", str(options.out)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"\n{speed_table(options.out)}")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    if failed:
        raise SystemExit(f"failed, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
