//! Code that is right, wrong, or breaks a limit.

use std::sync::LazyLock;

use serde_json::json;

use super::super::tests::case;
use super::*;

/// None, with a line on standard error, where there is no interpreter or no permission to isolate it.
fn reward(change: impl Fn(&mut CodeConfig)) -> Option<Code> {
    static POSSIBLE: LazyLock<Result<(), String>> =
        LazyLock::new(|| Code::new(CodeConfig::default()).map(drop).map_err(|error| error.to_string()));
    if let Err(reason) = &*POSSIBLE {
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut config = CodeConfig { timeout: 20.0, ..CodeConfig::default() };
    change(&mut config);
    Some(Code::new(config).expect("possible"))
}

fn score(reward: &Code, completion: &str, tests: Value) -> Option<f64> {
    reward.score(&[case(completion, &[("tests", tests)])]).expect("judged")[0]
}

#[test]
fn tests_pass_or_fail() {
    let Some(whole) = reward(|_| {}) else { return };
    let partial = reward(|config| config.partial = true).expect("possible");
    let double = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\n";
    let tests = json!(["assert double(2) == 4", "assert double('a') == 'aa'", "assert double(1) == 3"]);
    assert_eq!(score(&whole, double, tests.clone()), Some(0.0));
    assert_eq!(score(&partial, double, tests), Some(2.0 / 3.0));
    assert_eq!(score(&whole, double, json!("assert double(2) == 4")), Some(1.0));
    assert_eq!(score(&whole, "def double(x) return 2", json!("assert double(2) == 4")), Some(0.0));
    assert_eq!(score(&whole, double, json!([])), None);
    assert_eq!(whole.score(&[case(double, &[])]).expect("judged"), [None]);
    let told = whole.score(&[case(double, &[("tests", json!([1]))])]).expect_err("refused").to_string();
    assert!(told.starts_with("column `tests` must be Python code or a list of tests"), "{told}");

    let echo = "import sys\nfor line in sys.stdin:\n    print(int(line) + 1)\n";
    let io = json!([{"input": "1\n2\n", "output": "2\n3"}, {"input": "", "output": ""}]);
    assert_eq!(score(&whole, echo, io), Some(1.0));
    assert_eq!(score(&whole, "print(input())", json!([{"input": "a", "output": "b"}])), Some(0.0));
}

#[test]
fn nothing_passes_but_by_the_tests() {
    let Some(reward) = reward(|config| config.partial = true) else { return };
    for cheat in [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import sys\nprint('passed')\nsys.stdout.flush()",
        "import os\nos.write(1, b'passed\\n')\nos.close(1)",
        "import builtins\nbuiltins.print = lambda *a: None",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    ] {
        assert_eq!(score(&reward, cheat, json!(["assert answer() == 42"])), Some(0.0), "{cheat}");
    }
}

#[test]
fn limits_hold() {
    let Some(reward) = reward(|_| {}) else { return };
    // Each is a test that passes only if the limit stopped what the code tried.
    let stopped = |what: &str| {
        format!(
            "def stopped():\n    try:\n        {what}\n    except BaseException:\n        return True\n    return False\n"
        )
    };
    for what in [
        "bytearray(1 << 31)",
        "open('large', 'wb').write(b'x' * (32 << 20))",
        "[open('/dev/null') for _ in range(100)]",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (1 << 40, 1 << 40))",
    ] {
        assert_eq!(score(&reward, &stopped(what), json!(["assert stopped()"])), Some(1.0), "{what}");
    }
    let alone = "assert [name for _, name in socket.if_nameindex()] == ['lo']";
    assert_eq!(score(&reward, "import socket", json!([alone])), Some(1.0));
    let seen = "import os, sys\nseen = dict(os.environ), os.listdir('.'), sys.flags.isolated";
    let nothing = "assert set(seen[0]) <= {'PATH', 'LC_CTYPE'} and seen[1:] == ([], 1), seen";
    assert_eq!(score(&reward, seen, json!([nothing])), Some(1.0));
}

#[test]
fn what_runs_for_ever_ends_at_its_time() {
    let Some(reward) = reward(|config| {
        config.timeout = 0.5;
        config.partial = true;
    }) else {
        return;
    };
    for endless in
        ["while True: pass", "import time\ntime.sleep(1000)", "import os\nos.close(1)\nwhile True: pass"]
    {
        assert_eq!(score(&reward, endless, json!(["pass"])), Some(0.0), "{endless}");
    }
    // What had passed by then counts.
    let tests = json!(["assert True", "while True: pass", "assert True"]);
    assert_eq!(score(&reward, "x = 1", tests), Some(1.0 / 3.0));
    // A child that left its parent is killed with the name space.
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("alive");
    let leaves = format!(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        open({:?}, 'w').close()\n        time.sleep(0.01)\n",
        file.display()
    );
    score(&reward, &leaves, json!(["assert True"]));
    let _ = std::fs::remove_file(&file);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!file.exists(), "a process outlived its sandbox");
}

#[test]
fn an_interpreter_that_does_not_start_is_no_value() {
    let missing = CodeConfig { python: "no-such-python".into(), network: true, ..CodeConfig::default() };
    let told = Code::new(missing).expect_err("refused").to_string();
    assert!(told.starts_with("python: cannot start `no-such-python`"), "{told}");
    for (config, told) in [
        (
            CodeConfig { timeout: 0.0, ..CodeConfig::default() },
            "timeout: must be in (0, 3600] seconds, got 0 (default 5)",
        ),
        (CodeConfig { workers: 0, ..CodeConfig::default() }, "workers: must be 1 to 256, got 0 (default 2)"),
        (
            CodeConfig { memory: 1, ..CodeConfig::default() },
            "memory: must be 32 to 1048576 MiB, got 1 (default 512)",
        ),
    ] {
        assert_eq!(Code::new(config).expect_err("refused").to_string(), told);
    }
}
