//! Help texts as people read them, and the exit codes of the parser.

use crate::saddle::Place;

#[test]
fn help_of_every_command() {
    let place = Place::new();
    let overview = place.saddle(&["--help"]);
    assert_eq!((overview.code, overview.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("saddle", overview.stdout);
    let commands = commands(&overview.stdout);
    assert!(commands.contains(&"methods".to_owned()), "{commands:?}");
    for command in commands {
        let help = place.saddle(&[&command, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{command}");
        for below in self::commands(&help.stdout) {
            let help = place.saddle(&[&command, &below, "--help"]);
            assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{command} {below}");
            insta::assert_snapshot!(format!("{command}-{below}"), help.stdout);
        }
        insta::assert_snapshot!(command, help.stdout);
    }
}

/// The names in the list of commands of a help text.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !["Commands:", "Applications:"].contains(line))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn what_cannot_be_parsed_is_code_2_and_says_what_was_meant() {
    let place = Place::new();
    for (arguments, message) in [
        (&["trian"][..], "error: unrecognized subcommand 'trian'"),
        (&["methods", "--jsom"], "error: unexpected argument '--jsom' found"),
        (&["convert", "a", "b", "--dtype", "f64"], "error: invalid value 'f64' for '--dtype <TYPE>'"),
        (
            &["reproduce", "lion", "--seeds", "1"],
            "error: invalid value '1' for '--seeds <N>': 1 is not in 2..",
        ),
        (&["methods", "--threads", "0"], "error: invalid value '0' for '--threads <N>'"),
        (&[], "Post-train language models"),
    ] {
        let ended = place.saddle(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.starts_with(message), "{}", ended.stderr);
    }
}

#[test]
fn version_is_that_of_the_package() {
    let ended = Place::new().saddle(&["--version"]);
    assert_eq!((ended.code, ended.stdout), (0, format!("saddle {}\n", env!("CARGO_PKG_VERSION"))));
}
