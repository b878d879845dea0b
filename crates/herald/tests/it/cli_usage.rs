//! How the commands explain themselves, and what they do not take.

use crate::support::cli::{Running, run};

const COMMANDS: [&str; 9] =
    ["serve", "append", "poll", "stream", "demo", "log", "dev", "openapi", "completions"];

#[test]
fn every_command_has_help_with_examples() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("help", help.stdout);
    for command in COMMANDS.into_iter().chain(["dev issuer", "log seed"]) {
        let help = run(&format!("{command} --help").split(' ').collect::<Vec<_>>());
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{command}");
        assert!(help.stdout.contains("Examples:"), "{command}");
        if command != "serve" {
            insta::assert_snapshot!(format!("help-{}", command.replace(' ', "-")), help.stdout);
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_is_said_on_stderr() {
    let append = "append --her-id 7 --type NewMessage --message-id \
                  0f84d750-8ce3-4471-a1ac-ab7a55e609c0";
    let long = "x".repeat(1025);
    for args in [
        "",
        "nonsense",
        "poll",
        "poll --her-id 7",
        "poll --offset 0",
        "poll --her-id 0 --offset 0",
        "poll --her-id 2147483648 --offset 0",
        "poll --her-id +7 --offset 0",
        "poll --her-id 7 --offset -1",
        "poll --her-id 7 --offset 9223372036854775808",
        "poll --her-id 7 --offset 0 --limit 0",
        "poll --her-id 7 --offset 0 --limit 1001",
        "poll --her-id 7 --offset 0 --url nowhere",
        "poll --her-id 7 --offset 0 --url ftp://127.0.0.1",
        "stream --her-id 7",
        "stream --her-id 7 --offset 0 --max 0",
        "stream --her-id 7 --offset 0 --idle-exit soon",
        "stream --her-id 7 --offset 0 --idle-exit 0s",
        "stream --her-id 7 --offset 0 --checkpoint-every 1s",
        "stream --her-id 7 --checkpoint /no/such/file",
        "append --her-id 7",
        "append --type NewMessage",
        "append --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
        "append --description x",
        "append --her-id 7 --type NewMessage --message-id 7",
        "append --her-id 7 --type Newmessage --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
        &format!("{append} --triggered-by 0"),
        &format!("{append} --description {long}"),
        &format!("{append} --file drafts"),
        "append --file /no/such/file",
        "append --file /",
        "demo --for 0s",
        "log",
        "log check",
        "log seed",
        "log seed --from x",
        "log seed --log nats://127.0.0.1:1",
        "log seed --from x --log local",
        "log seed --from x --log nats://127.0.0.1:1 --retention 999ms",
        "log seed --from x --log nats://127.0.0.1:1 --retention 36501d",
        "log seed --from x --log redis://127.0.0.1:1",
        "log seed --from x --log nats://127.0.0.1:1 --next-offset -1",
        "completions nonsense",
        "dev",
        "dev issuer --listen 0.0.0.0:8088",
        "dev issuer --listen [::]:8088",
        "dev issuer --listen localhost",
        "dev issuer --dir /tmp/x --clients /tmp/y",
        "dev issuer --clients /no/such/file --algorithm RS256",
        "dev issuer --algorithm none",
        "dev issuer --algorithm HS256",
        "dev issuer --typ jwt",
        "dev issuer --lifetime 0s",
        "dev issuer --lifetime 1500ms",
        "dev issuer --lifetime 1d1s",
        "dev issuer --nonce-period 1ms",
        "dev issuer --rotate-every 0s",
    ] {
        let args: Vec<_> = args.split_whitespace().collect();
        let ended = run(&args);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    for name in ["", " ", "a\nb", &"x".repeat(513)] {
        let ended = run(&["poll", "--her-id", "7", "--offset", "0", "--source-system", name]);
        assert_eq!(ended.code, 2, "{name:?}: {}", ended.stderr);
    }
}

#[test]
fn files_that_cannot_be_read_are_wrong_usage_and_named() {
    let poll = ["poll", "--her-id", "7", "--offset", "0", "--url", "https://localhost:1"];
    let missing = "/no/such/file";
    for (flags, told) in [
        (&["--ca-cert", missing][..], "--ca-cert /no/such/file: No such file"),
        (&["--client-cert", missing, "--client-key", missing], "--client-cert /no/such/file: No"),
        (&["--client-cert", "/dev/null", "--client-key", "/"], "--client-key /: Is a directory"),
    ] {
        let ended = run(&[&poll[..], flags].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[test]
fn wrong_usage_names_the_usage_of_the_command_that_was_given() {
    for (args, usage) in [
        (&["poll", "--her-id", "7", "--offset", "0", "--url", "x:"][..], "Usage: herald poll "),
        (&["append", "--file", "/no/such/file"], "Usage: herald append "),
        (&["dev", "issuer", "--listen", "0.0.0.0:1"], "Usage: herald dev issuer "),
    ] {
        let ended = run(args);
        assert!(ended.code == 2 && ended.stderr.contains(usage), "{}", ended.stderr);
    }
}

#[test]
fn shells_learn_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, 0);
        assert!(COMMANDS.iter().all(|command| script.stdout.contains(command)), "{shell}");
    }
}

#[test]
fn a_stdout_that_nobody_reads_ends_a_command_quietly() {
    let mut running = Running::start(&["completions", "bash"]);
    running.close_stdout();
    assert_eq!(running.end(), (0, String::new()));
}
