"""TOPO on linear models: the authors' program and `saddle solve dag` in turns, on the same samples from the same orders.

    python topo.py --code CHECKOUT --saddle target/release/saddle [--nodes 10 20 30 50] [--graphs ER1 ER2 ER4 SF4] [--seeds 10]

CHECKOUT is a copy of github.com/Duntrain/TOPO; its files are run as they are, with `torch`, which they import for nonlinear models alone,
replaced by an empty module where it is not installed. Needs numpy, scipy, scikit-learn and igraph. Data are made by the peer's
own simulator. Both start from the order of the columns, with the same sizes of the sets. One JSON line a data set, then a table: `seconds` are
those of the search in this process for the peer, and those that the program reports for ours; scores are of the fitted
order, SHD after the threshold 0.3. Exit code 1 if a ratio of times (the median over seeds) is below 10, or a mean score or SHD is above the peer's.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path


def peer(code: Path):
    """The peer's modules; its files import each other by names of other case."""
    if not (code / "Topo_linear.py").exists():
        sys.exit(f"{code}: not there; --code must be a checkout of Duntrain/TOPO")
    stand_in = importlib.util.find_spec("torch") is None
    if stand_in:
        sys.modules["torch"] = types.ModuleType("torch")
        sys.modules["torch"].Tensor = type("Tensor", (), {})
    sys.path.insert(0, str(code))
    sys.modules["topo_utils"] = importlib.import_module("Topo_utils")
    modules = importlib.import_module("Topo_linear"), importlib.import_module("utils")
    if stand_in:
        # Other libraries ask whether there is one.
        del sys.modules["torch"]
    return modules


def sizes(d: int) -> tuple[int, int]:
    pairs = d * (d - 1) // 2
    return min(100, max(1, pairs // 4)), min(400, pairs)


def run_peer(linear, x, small: int, large: int):
    import numpy as np
    from sklearn.linear_model import LinearRegression

    def regress(X, y):
        reg = LinearRegression(fit_intercept=False)
        reg.fit(X=X, y=y)
        return reg.coef_

    def score(X, W):
        R = X - X @ W
        return 0.5 / X.shape[0] * (R**2).sum(), -1.0 / X.shape[0] * X.T @ R

    linear.X = x  # a global that its fit reads
    model = linear.TOPO_linear(regress=regress, score=score)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        w, _, _, loss = model.fit(X=x, topo=list(range(x.shape[1])), no_large_search=1, size_small=small, size_large=large)
        seconds = time.perf_counter() - start
    return np.asarray(w), float(loss), seconds


def run_ours(saddle: Path, x, names, small: int, large: int, threads: int):
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        np.savetxt(path, x, delimiter=",", header=",".join(names), comments="", fmt="%.17g")
        command = [saddle, "solve", "dag", "--data", path, "--scale", "none", "--start", "columns", "--json"]
        command += ["--small", str(small), "--large", str(large), "--threads", str(threads)]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    out = json.loads(done.stdout)
    graph = np.zeros((len(names), len(names)))
    for edge in out["edges"]:
        graph[names.index(edge["from"]), names.index(edge["to"])] = edge["weight"]
    return graph, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--saddle", type=Path, required=True)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 20, 30, 50])
    parser.add_argument("--graphs", nargs="+", default=["ER1", "ER2", "ER4", "SF1", "SF2", "SF4"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import numpy as np

    linear, utils = peer(args.code)
    rows, missed = [], False
    for d in args.nodes:
        for graph in args.graphs:
            edges = int(graph[2:]) * d
            if edges > d * (d - 1) // 2:
                continue
            results = []
            for seed in range(args.seeds):
                utils.set_random_seed(seed)
                truth = utils.simulate_dag(d, edges, graph[:2])
                x = utils.simulate_linear_sem(utils.simulate_parameter(truth), args.samples, "gauss")
                names = [f"x{j}" for j in range(d)]
                small, large = sizes(d)
                w, loss, seconds = run_peer(linear, x, small, large)
                ours, out = run_ours(args.saddle, x, names, small, large, args.threads)
                theirs = utils.count_accuracy(truth, np.abs(w) >= 0.3)
                mine = utils.count_accuracy(truth, ours != 0)
                result = {
                    "nodes": d, "graph": graph, "seed": seed, "seconds": [out["seconds"], seconds],
                    "score": [out["score"], loss], "shd": [int(mine["shd"]), int(theirs["shd"])],
                    "kkt_violations": out["kkt"]["violations"], "finished": out["finished"],
                }
                print(json.dumps(result), flush=True)
                results.append(result)
            of = lambda key: np.array([result[key] for result in results], dtype=float)
            ratio = float(np.median(of("seconds")[:, 1] / of("seconds")[:, 0]))
            (score, their_score), (shd, their_shd) = of("score").mean(0), of("shd").mean(0)
            off = int(sum(result["kkt_violations"] > 0 or not result["finished"] for result in results))
            missed |= ratio < 10 or score > their_score + 1e-9 or shd > their_shd or off > 0
            rows.append((d, graph, *np.median(of("seconds"), 0), ratio, score, their_score, shd, their_shd, off))
    print("nodes graph   ours, s  peer, s   ratio     score  peer's      SHD  peer's  off KKT")
    for d, graph, ours, theirs, ratio, score, their_score, shd, their_shd, off in rows:
        print(f"{d:5} {graph:5} {ours:9.4f} {theirs:8.3f} {ratio:7.0f} {score:9.4f} {their_score:9.4f} {shd:7.2f} {their_shd:7.2f} {off:4}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
