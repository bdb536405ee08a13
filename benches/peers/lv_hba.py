"""LV-HBA on the hyperparameters of a linear SVM: the authors' program, one JSON line.

    python lv_hba.py --code CHECKOUT [--problem diabetes|fourclass] [--seed 1] [--rounds 80] [--threads 2]

CHECKOUT is a copy of github.com/SUSTech-Optimization/LV-HBA; its files are run as they are, from their own folder. Needs
torch, numpy, matplotlib, cvxpy and ecos (requirements-lv-hba.txt). `seconds` are those that the program itself counts after each
round, with its evaluation of both losses in them; `val_acc`, `test_acc` and `val_loss` are its own figures after each round.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
from pathlib import Path

FILES = {
    "diabetes": "Hyperparameter optimization/Linear SVM/diabetes/LV-HBA.py",
    "fourclass": "Hyperparameter optimization/Linear SVM/fourclass/LV-HBA/LV-HBA.py",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="checkout of the authors' repository")
    parser.add_argument("--problem", choices=FILES, default="diabetes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import matplotlib
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    path = (args.code / FILES[args.problem]).resolve()
    if not path.exists():
        sys.exit(f"{path}: not there; --code must be a checkout of SUSTech-Optimization/LV-HBA")
    os.chdir(path.parent)
    spec = importlib.util.spec_from_file_location("lv_hba_peer", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    with contextlib.redirect_stdout(io.StringIO()):
        val_loss, test_loss, val_acc, test_acc, seconds, whole = program.run(args.seed, args.rounds)
    curves = {"val_loss": val_loss, "test_loss": test_loss, "val_acc": val_acc, "test_acc": test_acc, "seconds": seconds}
    result = {"peer": "SUSTech-Optimization/LV-HBA", "problem": args.problem, "seed": args.seed, "whole_s": whole}
    print(json.dumps(result | {name: [float(value) for value in curve] for name, curve in curves.items()}))


if __name__ == "__main__":
    main()
