"""Equality-constrained problems of CUTEst: IPOPT and Saddlepoint's solvers in turns, on the same functions under the same clock.

    cargo build --release --manifest-path nlp/Cargo.toml
    python nlp.py --sif FOLDER [PROBLEM ...] [--most 1000] [--page ../../docs/nlp.md] [--json]

FOLDER holds the SIF files. Taken are all problems that can be read, with at most `--most` variables, no bounds, at least one constraint,
equalities alone, and no more of them than variables. `nlp/` is a C library around the crate saddlepoint-opt: IPOPT (the one in PyPI's
casadi, with MUMPS) calls its compiled functions without Python in between, and our solvers run in the same library. Both sides get exact
first and second derivatives, the file's start, the tolerance 1e-6 (sketched-newton: 1e-4, its paper's) and the same limit of
time. Whether a problem is solved is not what a solver says: the KKT residuals at its last point with its multipliers are
measured by the same code for all. Each solve is in a process of its own; its seconds are the least of `--repeat` runs, without loading.
One thread each. Evaluations are
timed by themselves, so that seconds can be given with and without them.
"""

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_void_p
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = HERE / "nlp/target/release/libsaddlepoint_peer_nlp.so"
SOLVERS = {
    "ipopt": 1e-6,
    "interior-point": 1e-6,
    "augmented-lagrangian": 1e-6,
    "sketched-newton": 1e-4,
    "sketched-newton/direct": 1e-4,
}
ENOUGH = [1e-4, 1e-6]
FACTORS = [1, 2, 5, 10, 100]
# Beyond this a solve is worth nothing, whatever it found.
PATIENCE = 5.0


class Told(ctypes.Structure):
    _fields_ = [
        ("optimal", c_int),
        ("iterations", c_int64),
        ("seconds", c_double),
        ("evaluation", c_double),
        ("objective", c_double),
        ("kkt", c_double * 4),
    ]


def library(path: Path) -> ctypes.CDLL:
    if not path.exists():
        sys.exit(f"{path}: not there; run cargo build --release --manifest-path {HERE / 'nlp/Cargo.toml'}")
    lib = ctypes.CDLL(str(path))
    lib.nlp_open.restype = c_void_p
    lib.nlp_open.argtypes = [c_char_p]
    lib.nlp_sizes.argtypes = [c_void_p, POINTER(c_int)]
    lib.nlp_bounds.argtypes = [c_void_p] + [POINTER(c_double)] * 5
    lib.nlp_judge.argtypes = [c_void_p] + [POINTER(c_double)] * 4
    lib.nlp_counts.argtypes = [c_void_p, POINTER(c_int), POINTER(c_int)]
    lib.nlp_counts.restype = c_double
    lib.nlp_solve.argtypes = [c_void_p, c_char_p, c_double, c_double, POINTER(Told)]
    return lib


def opened(lib: ctypes.CDLL, path: Path) -> tuple[int, list[int]] | None:
    problem = lib.nlp_open(str(path).encode())
    if not problem:
        return None
    sizes = (c_int * 5)()
    lib.nlp_sizes(problem, sizes)
    return problem, list(sizes)


def ours(lib: ctypes.CDLL, problem: int, solver: str, seconds: float) -> dict:
    told = Told()
    if not lib.nlp_solve(problem, solver.encode(), SOLVERS[solver], seconds, byref(told)):
        return {"refused": True}
    keys = ("iterations", "seconds", "evaluation", "objective")
    return {key: getattr(told, key) for key in keys} | {"kkt": list(told.kkt), "says": bool(told.optimal)}


def ipopt(lib: ctypes.CDLL, problem: int, sizes: list[int], seconds: float) -> dict:
    """By the C interface of the library in casadi's wheel."""
    import time

    folder = Path(find_spec("casadi").origin).parent
    api = ctypes.CDLL(str(folder / "libipopt.so"))
    n, m, jacobian, hessian, _ = sizes
    doubles = lambda size: (c_double * max(size, 1))()  # noqa: E731
    lower, upper, least, most, x = doubles(n), doubles(n), doubles(m), doubles(m), doubles(n)
    lib.nlp_bounds(problem, lower, upper, least, most, x)
    callback = lambda name: ctypes.cast(getattr(lib, name), c_void_p)  # noqa: E731
    api.CreateIpoptProblem.restype = c_void_p
    api.CreateIpoptProblem.argtypes = (
        [c_int] + [POINTER(c_double)] * 2 + [c_int] + [POINTER(c_double)] * 2 + [c_int] * 3 + [c_void_p] * 5
    )
    functions = [callback(name) for name in ("nlp_f", "nlp_g", "nlp_grad_f", "nlp_jac_g", "nlp_h")]
    solver = api.CreateIpoptProblem(n, lower, upper, m, least, most, jacobian, hessian, 0, *functions)
    api.AddIpoptStrOption.argtypes = [c_void_p, c_char_p, c_char_p]
    api.AddIpoptNumOption.argtypes = [c_void_p, c_char_p, c_double]
    api.AddIpoptIntOption.argtypes = [c_void_p, c_char_p, c_int]
    for option in (b"tol", b"dual_inf_tol", b"constr_viol_tol", b"compl_inf_tol"):
        api.AddIpoptNumOption(solver, option, SOLVERS["ipopt"])
    api.AddIpoptNumOption(solver, b"max_wall_time", seconds)
    api.AddIpoptIntOption(solver, b"print_level", 0)
    api.AddIpoptStrOption(solver, b"sb", b"yes")
    api.SetIntermediateCallback.argtypes = [c_void_p, c_void_p]
    api.SetIntermediateCallback(solver, callback("nlp_iteration"))
    api.IpoptSolve.argtypes = [c_void_p] + [POINTER(c_double)] * 6 + [c_void_p]
    g, f, multipliers, below, above = doubles(m), c_double(), doubles(m), doubles(n), doubles(n)
    iterations, missing = c_int(), c_int()
    lib.nlp_counts(problem, byref(iterations), byref(missing))
    begin = time.perf_counter()
    status = api.IpoptSolve(solver, x, g, byref(f), multipliers, below, above, problem)
    whole = time.perf_counter() - begin
    evaluation = lib.nlp_counts(problem, byref(iterations), byref(missing))
    api.FreeIpoptProblem.argtypes = [c_void_p]
    api.FreeIpoptProblem(solver)
    objective, kkt = c_double(), doubles(4)
    lib.nlp_judge(problem, x, multipliers, byref(objective), kkt)
    found = {"iterations": iterations.value, "seconds": whole, "evaluation": evaluation, "objective": objective.value}
    return found | {"kkt": list(kkt), "says": status in (0, 1), "status": status, "missing": missing.value}


def solve(args: argparse.Namespace) -> None:
    """In a process of its own: one solver on one problem."""
    lib = library(args.library)
    problem, sizes = opened(lib, args.one)
    best = None
    for _ in range(args.repeat):
        run = ipopt(lib, problem, sizes, args.seconds) if args.solver == "ipopt" else ours(lib, problem, args.solver, args.seconds)
        if best is None or run.get("seconds", 0.0) < best.get("seconds", 0.0):
            best = run
        if run.get("seconds", 0.0) > 1.0:
            break
    print(json.dumps(best))


def run(args: argparse.Namespace, path: Path, solver: str) -> dict:
    command = [sys.executable, __file__, "--one", str(path), "--solver", solver, "--library", str(args.library)]
    command += ["--repeat", str(args.repeat), "--seconds", str(args.seconds)]
    # One thread on both sides: ours has no more, and IPOPT's linear algebra would wait for itself on problems of this size.
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * args.seconds, env=alone)
    except subprocess.TimeoutExpired:
        return {"failed": "no end"}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def solved(row: dict, enough: float) -> bool:
    kkt = row.get("kkt")
    return bool(kkt) and math.isfinite(kkt[3]) and kkt[3] <= enough


def own(row: dict) -> float:
    """Seconds without those of the functions; a clock has its limits."""
    return max(row["seconds"] - row["evaluation"], 1e-7)


def profile(rows: dict[str, dict[str, dict]], of, solvers: list[str]) -> dict[str, list[float]]:
    """The share of problems that each solves within factors of the fastest time."""
    shares = {solver: [0] * len(FACTORS) for solver in solvers}
    for each in rows.values():
        times = {solver: of(each[solver]) for solver in solvers if solved(each[solver], ENOUGH[0])}
        for solver, seconds in times.items():
            for k, factor in enumerate(FACTORS):
                shares[solver][k] += seconds <= factor * min(times.values())
    return {solver: [count / len(rows) for count in counts] for solver, counts in shares.items()}


def summary(rows: dict[str, dict[str, dict]]) -> dict:
    common = [each for each in rows.values() if all(solved(each[s], ENOUGH[0]) for s in ("ipopt", "interior-point"))]
    table = {}
    for solver in SOLVERS:
        mine = [each[solver] for each in rows.values()]
        entry = {f"solved to {enough:.0e}": sum(solved(row, enough) for row in mine) for enough in ENOUGH}
        both = [each for each in rows.values() if solved(each[solver], ENOUGH[0]) and solved(each["ipopt"], ENOUGH[0])]
        if both:
            ratio = lambda of: math.exp(statistics.fmean(math.log(of(e[solver]) / of(e["ipopt"])) for e in both))  # noqa: E731
            entry |= {
                "both": len(both),
                "iterations": statistics.median(each[solver]["iterations"] for each in both),
                "ipopt_iterations": statistics.median(each["ipopt"]["iterations"] for each in both),
                "seconds_ratio": ratio(lambda row: max(row["seconds"], 1e-7)),
                "own_seconds_ratio": ratio(own),
            }
            near = [abs(e[solver]["objective"] - e["ipopt"]["objective"]) <= 1e-4 * max(1.0, abs(e["ipopt"]["objective"])) for e in both]
            entry["same_objective"] = sum(near)
        table[solver] = entry
    of = {"whole": lambda row: max(row["seconds"], 1e-7), "own": own}
    # A method and what is to be shown beside it: a baseline of ours may not take a place from it.
    shown = [solver for solver in SOLVERS if solver != "sketched-newton/direct"]
    return {"problems": len(rows), "common": len(common), "solvers": table} | {
        f"profile_{name}": profile(rows, key, shown) for name, key in of.items()
    }


def page(result: dict, rows: dict[str, dict[str, dict]], sizes: dict[str, list[int]], args: argparse.Namespace) -> str:
    count = result["problems"]
    out = [
        "# Beside IPOPT on equality-constrained problems of CUTEst",
        "",
        f"Written by `benches/peers/nlp.py --page`; not by hand. {count} problems: all SIF files that are read with at most {args.most} variables (default "
        "parameters), equalities alone, no bounds, no more constraints than variables. IPOPT 3.14 is the one in PyPI's "
        f"casadi {version('casadi')}, with MUMPS. Both sides evaluate the same compiled functions with exact derivatives, from the file's start, to a tolerance "
        f"of 1e-6 (sketched-newton: 1e-4), for at most {args.seconds:g} s. *Solved* is judged by the KKT residuals that one piece of code measures at every "
        "solver's last point; no solver is asked.",
        "",
        "| solver | solved to 1e-4 | to 1e-6 | solved by IPOPT too | iterations there, median | IPOPT's | seconds over IPOPT's, geometric mean | without evaluation | same objective |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for solver, entry in result["solvers"].items():
        first = f"| `{solver}` | {entry['solved to 1e-04']} ({100 * entry['solved to 1e-04'] / count:.1f} %) | {entry['solved to 1e-06']} | "
        out.append(
            first
            + f"{entry['both']} | {entry['iterations']:g} | {entry['ipopt_iterations']:g} | {entry['seconds_ratio']:.3f} | "
            + f"{entry['own_seconds_ratio']:.3f} | {entry['same_objective']} |"
        )
    for name, title in (("whole", "all seconds"), ("own", "seconds without evaluation")):
        out += ["", f"Share of the {count} problems solved to 1e-4 within a factor of the fastest of these solvers, by {title}:", ""]
        out += ["| solver | " + " | ".join(f"{factor} ×" for factor in FACTORS) + " |", "|---|" + "---:|" * len(FACTORS)]
        out += [
            f"| `{solver}` | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |"
            for solver, shares in result[f"profile_{name}"].items()
        ]
    out += ["", "## Not solved to 1e-4", "", "KKT error of the last point, and the iterations.", ""]
    out += ["| problem | n | m | " + " | ".join(f"`{solver}`" for solver in SOLVERS) + " |", "|---|---:|---:|" + "---|" * len(SOLVERS)]

    def cell(row: dict) -> str:
        if "refused" in row or "failed" in row:
            return row.get("failed", "refused")
        return "✓" if solved(row, ENOUGH[0]) else f"{row['kkt'][3]:.0e} in {row['iterations']}"

    for name, each in rows.items():
        if not all(solved(each[solver], ENOUGH[0]) for solver in SOLVERS):
            out.append(f"| {name} | {sizes[name][0]} | {sizes[name][1]} | " + " | ".join(cell(each[s]) for s in SOLVERS) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", help="names [default: all that fit]")
    parser.add_argument("--sif", type=Path, help="folder of SIF files")
    parser.add_argument("--library", type=Path, default=LIBRARY)
    parser.add_argument("--most", type=int, default=1000, help="most variables")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="most seconds of a solve")
    parser.add_argument("--page", type=Path, help="write the page of results")
    parser.add_argument("--json", action="store_true", help="print all rows")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--solver", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        solve(args)
        return
    if not args.sif or not args.sif.is_dir():
        parser.error("--sif: give the folder of SIF files")
    lib = library(args.library)
    rows, sizes = {}, {}
    for path in sorted(args.sif.glob("*.SIF")):
        if args.problems and path.stem not in args.problems:
            continue
        found = opened(lib, path)
        if found is None:
            continue
        problem, size = found
        lib.nlp_close.argtypes = [c_void_p]
        lib.nlp_close(problem)
        n, m, _, _, equalities = size
        if not equalities or not 0 < m <= n <= args.most:
            continue
        sizes[path.stem] = size
        rows[path.stem] = {solver: run(args, path, solver) for solver in SOLVERS}
        if not args.json:
            shown = {s: f"{r['kkt'][3]:.0e}/{r['iterations']}/{r['seconds']:.4f}s" if "kkt" in r else str(r) for s, r in rows[path.stem].items()}
            print(path.stem, n, m, shown, file=sys.stderr)
    if not rows:
        sys.exit("no problem fits")
    result = summary(rows)
    if args.page:
        args.page.write_text(page(result, rows, sizes, args))
    print(json.dumps(result | ({"rows": rows} if args.json else {})))


if __name__ == "__main__":
    main()
