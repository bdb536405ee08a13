# Runs code and its tests under limits. Read by `python3 -I -c`; the job comes as JSON on standard input, what passed goes to
# standard output, each line behind a word that only this function and its caller know.
import io, json, os, resource, sys


def main():
    job = json.loads(sys.stdin.buffer.read())
    report = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name, most in job["limits"]:
        resource.setrlimit(getattr(resource, name), (most, most))

    def tell(word):
        report.write(job["word"] + " " + word + "\n")
        report.flush()

    def run_program(test):
        sys.stdin = io.TextIOWrapper(io.BytesIO(test["input"].encode()))
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        printed = sys.stdout
        try:
            exec(compile(job["code"], "completion", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            if end.code not in (None, 0):
                return False
        printed.flush()
        lines = lambda text: [line.rstrip() for line in text.strip().splitlines()]
        return lines(printed.buffer.getvalue().decode()) == lines(test["output"])

    scope = {"__name__": "__main__"}
    state = {"defined": None}

    def run_python(test):
        if state["defined"] is None:
            state["defined"] = False
            exec(compile(job["code"], "completion", "exec"), scope)
            state["defined"] = True
        if not state["defined"]:
            return False
        exec(compile(test, "test", "exec"), scope)
        return True

    tell("ready")
    for test in job["tests"]:
        try:
            passed = run_python(test) if isinstance(test, str) else run_program(test)
        except BaseException:
            passed = False
        tell("passed" if passed else "failed")
    os._exit(0)


main()
