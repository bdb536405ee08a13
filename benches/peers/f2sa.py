"""Hyper-cleaning by F2SA: the solver of benchopt/benchmark_bilevel, one JSON line.

    python f2sa.py --code CHECKOUT --data FILE --train N --held-out M [--start -5] [--rounds 400] [--threads 2]
        [--step-size 0.001] [--outer-ratio 0.1] [--delta 0.1] [--inner 10] [--batch full|64] [--every 4]

CHECKOUT is a copy of github.com/benchopt/benchmark_bilevel; its solvers/f2sa.py is run as it is, by its own loop. Needs benchopt and jax
(requirements-f2sa.txt). The problem is that of `saddle solve hyper-cleaning` (docs/solvers.md), stated here in jax; FILE has its examples in
LIBSVM's format, in the order in which they are taken. As there, the lower level starts solved. A round is `every` steps of the upper level.
`seconds` are those of the rounds alone: neither compilation, which a run before has done, nor the evaluation after each round. The defaults are the fastest of those tried on breast-cancer: gradients on all
examples or 64, 1 or 10 steps of the lower level, at this step and ratio.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy


def examples(path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Features with a column of ones for the intercept, and labels ±1."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    labels = numpy.array([float(line[0]) for line in lines])
    pairs = [[pair.split(":") for pair in line[1:]] for line in lines]
    features = numpy.zeros((len(lines), max(int(i) for row in pairs for i, _ in row) + 1))
    for row, known in zip(features, pairs, strict=True):
        for i, value in known:
            row[int(i) - 1] = float(value)
        row[-1] = 1.0
    return features, numpy.where(labels == labels.max(), 1.0, -1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="checkout of the benchmark's repository")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, required=True)
    parser.add_argument("--held-out", type=int, required=True)
    parser.add_argument("--start", type=float, default=-5.0)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step-size", type=float, default=0.001)
    parser.add_argument("--outer-ratio", type=float, default=0.1)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--inner", type=int, default=10)
    parser.add_argument("--batch", default="full", help="examples a gradient, or `full`")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    path = args.code.resolve() / "solvers" / "f2sa.py"
    if not path.exists():
        sys.exit(f"{path}: not there; --code must be a checkout of benchopt/benchmark_bilevel")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

    import jax
    import jax.numpy as jnp
    from scipy.optimize import minimize

    features, labels = examples(args.data)
    n, m = args.train, args.held_out
    train_x, train_s = jnp.array(features[:n]), jnp.array(labels[:n])
    held_x, held_s = jnp.array(features[n : n + m]), jnp.array(labels[n : n + m])

    def part(array, start, batch_size):
        return jax.lax.dynamic_slice_in_dim(array, start, batch_size)

    def f_inner(y, c, start=0, batch_size=n):
        short = jnp.maximum(0.0, 1.0 - part(train_s, start, batch_size) * (part(train_x, start, batch_size) @ y))
        loss = jnp.sum(jnp.exp(part(c, start, batch_size)) * short**2)
        return 0.5 * jnp.sum(y[:-1] ** 2) + 0.5 * n / batch_size * loss

    def f_outer(y, c, start=0, batch_size=m):
        margin = part(held_s, start, batch_size) * (part(held_x, start, batch_size) @ y) / jnp.linalg.norm(y[:-1])
        value = 2.0 * jax.nn.sigmoid(-5.0 * margin) - 1.0
        return m / batch_size * jnp.sum(jnp.maximum(value, value / 100.0))

    start_c = jnp.full(n, args.start)
    solved = minimize(jax.jit(jax.value_and_grad(f_inner)), numpy.zeros(features.shape[1]), (start_c,), jac=True, method="L-BFGS-B")
    sys.path.insert(0, str(args.code.resolve()))
    sys.stdout, stdout = sys.stderr, sys.stdout
    spec = importlib.util.spec_from_file_location("f2sa_peer", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    batch = "full" if args.batch == "full" else int(args.batch)
    solver = program.Solver.get_instance(
        step_size=args.step_size, outer_ratio=args.outer_ratio, delta_lmbda=args.delta, n_inner_steps=args.inner,
        batch_size=batch, eval_freq=args.every, random_state=args.seed,
    )
    solver.set_objective(
        f_inner=f_inner, f_outer=f_outer, n_inner_samples=n, n_outer_samples=m,
        inner_var0=jnp.array(solved.x, dtype=jnp.float32), outer_var0=start_c,
    )

    seconds, accuracy, loss = [], [], []
    begin, spent = time.perf_counter(), 0.0

    def callback() -> bool:
        nonlocal begin, spent
        jax.block_until_ready((solver.inner_var, solver.outer_var))
        spent += time.perf_counter() - begin
        y = numpy.asarray(solver.inner_var)
        seconds.append(spent)
        accuracy.append(float(numpy.mean(numpy.asarray(held_s) * (numpy.asarray(held_x) @ y) > 0.0)))
        loss.append(float(f_outer(y, None)) / m)
        begin = time.perf_counter()
        return len(seconds) <= args.rounds and numpy.isfinite(y).all()

    # set_objective has warmed it up, and left its variables behind.
    solver.inner_var, solver.outer_var = solver.inner_var0, solver.outer_var0
    begin = time.perf_counter()
    solver.run(callback)
    test = features[n + m :] @ numpy.asarray(solver.inner_var) * labels[n + m :] > 0.0
    result = {"peer": "benchopt/benchmark_bilevel F2SA", "seconds": seconds, "accuracy": accuracy, "loss": loss}
    result["test_accuracy"] = float(test.mean()) if len(test) else None
    result["log_weights"] = numpy.asarray(solver.outer_var).tolist()
    print(json.dumps(result), file=stdout)


if __name__ == "__main__":
    main()
