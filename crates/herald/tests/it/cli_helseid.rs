//! The client commands where tokens are needed: who they say they are, and how they end without a token.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use crate::{
    script::{Script, answer, connected, event, object, page, write},
    support::cli::{Ended, run, run_with_variables},
};

const KEY: &str = include_str!("../../../herald-auth/tests/keys/p256.jwk.json");
const PEM: &str = include_str!("../../../herald-auth/tests/keys/rsa.pkcs8.pem");
const DRAFT: &str = "append --type NewMessage --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0";

/// An issuer whose tokens are named after the scope that was asked for.
fn issuer() -> Script {
    Script::start(|_, request, stream| {
        let url = format!("http://{}", request.header("host").unwrap());
        let body = if request.target().starts_with("GET") {
            format!(r#"{{"issuer":"{url}","token_endpoint":"{url}/token"}}"#)
        } else {
            let body = str::from_utf8(&request.body).unwrap();
            assert!(body.contains("&client_id=journal&"), "{body}");
            let scope = body.split("&scope=").nth(1).unwrap().split('&').next().unwrap();
            format!(r#"{{"access_token":"{scope}","token_type":"DPoP","expires_in":600}}"#)
        };
        write(stream, answer("200 OK", "", body));
    })
}

/// A server that gives each call one notification and takes each draft.
fn server() -> Script {
    Script::start(|_, request, stream| match request.target() {
        "GET /notifications/stream" => write(stream, connected("") + &event(6)),
        "GET /notifications" => write(stream, page("200 OK", "", &[object(6)])),
        _ => write(stream, page("201 Created", "", &["{}".into()])),
    })
}

struct Key {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Key {
    fn with(text: impl AsRef<[u8]>, mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self { _directory: directory, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

fn command<'a>(command: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    command.split(' ').chain(["--her-id", "7"]).chain(flags.iter().copied()).collect()
}

/// The tokens of all calls so far.
fn tokens(server: &Script) -> Vec<String> {
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.header("dpop").is_some()));
    requests.iter().map(|request| request.header("authorization").unwrap().to_owned()).collect()
}

#[test]
fn each_command_signs_in_for_what_it_does_unless_told_otherwise() {
    let (issuer, server, key) = (issuer(), server(), Key::with(KEY, 0o600));
    let run = |line: &str, more: &[&str]| {
        let flags = ["--url", &server.url, "--helseid-issuer", &issuer.url];
        let key = ["--helseid-client-id", "journal", "--helseid-key-file", key.path()];
        let ended = run(&command(line, &[&flags[..], &key, more].concat()));
        assert_eq!((ended.code, ended.lines().len()), (0, 1), "{line}: {}", ended.stderr);
    };
    run("poll --offset 5", &[]);
    run("stream --offset 5 --max 1", &[]);
    run(DRAFT, &[]);
    run(DRAFT, &["--helseid-scope", "one two"]);
    let read = "DPoP nhn%3Amsh%2Fapi";
    let publish = "DPoP nhn%3Amsh%2Fnotifications-publish";
    assert_eq!(tokens(&server), [read, read, publish, "DPoP one+two"]);
}

#[test]
fn credentials_may_be_in_the_environment_and_a_key_file_goes_before_a_key() {
    let (issuer, server, key) = (issuer(), server(), Key::with(PEM, 0o600));
    let broken = Key::with("broken", 0o600);
    let args = command("poll --offset 5", &["--url", &server.url]);
    let who =
        [("HERALD_HELSEID_ISSUER", issuer.url.as_str()), ("HERALD_HELSEID_CLIENT_ID", "journal")];
    for (more, code) in [
        (&[("HERALD_HELSEID_KEY", KEY)][..], 0),
        (&[("HERALD_HELSEID_KEY", PEM), ("HERALD_HELSEID_SCOPE", "one")], 0),
        (&[("HERALD_HELSEID_KEY_FILE", key.path())], 0),
        (&[("HERALD_HELSEID_KEY_FILE", key.path()), ("HERALD_HELSEID_KEY", "broken")], 0),
        (&[("HERALD_HELSEID_KEY_FILE", broken.path()), ("HERALD_HELSEID_KEY", KEY)], 2),
        (&[("HERALD_HELSEID_KEY", "broken")], 2),
        (&[("HERALD_HELSEID_KEY", "")], 2),
    ] {
        let ended = run_with_variables(&args, &[&who[..], more].concat());
        assert_eq!(ended.code, code, "{}", ended.stderr);
    }
    let read = "DPoP nhn%3Amsh%2Fapi";
    assert_eq!(tokens(&server), [read, "DPoP one", read, read]);
}

fn poll(flags: &[&str]) -> Ended {
    let flags = [&["--helseid-issuer", "http://127.0.0.1:1", "--helseid-client-id", "x"], flags];
    run(&command("poll --offset 5", &flags.concat()))
}

#[test]
fn half_of_the_credentials_are_wrong_usage() {
    let key = Key::with(KEY, 0o600);
    for (flags, missing) in [
        (
            &["--helseid-issuer", "http://127.0.0.1:1"][..],
            "--helseid-client-id and --helseid-key-file",
        ),
        (&["--helseid-client-id", "x"], "--helseid-issuer and --helseid-key-file"),
        (&["--helseid-key-file", key.path()], "--helseid-issuer and --helseid-client-id"),
        (&["--helseid-scope", "x"], "--helseid-issuer and --helseid-client-id and"),
        (&["--helseid-client-id", "x", "--helseid-key-file", key.path()], "--helseid-issuer"),
    ] {
        let ended = run(&command("poll --offset 5", flags));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&format!("there is no {missing}")), "{}", ended.stderr);
    }
    let args = command("poll --offset 5", &[]);
    let ended = run_with_variables(&args, &[("HERALD_HELSEID_KEY", KEY)]);
    assert!(ended.code == 2 && !ended.stderr.contains("5yCj5cnL"), "{}", ended.stderr);
    assert!(ended.stderr.contains("(HERALD_HELSEID_KEY is set)"), "{}", ended.stderr);
    let variables = [("HERALD_HELSEID_KEY", KEY), ("HERALD_HELSEID_SCOPE", "x")];
    for (variables, told) in [
        (&variables[1..], "and --helseid-key-file (HERALD_HELSEID_SCOPE is set)"),
        (&variables, "client-id (HERALD_HELSEID_KEY and HERALD_HELSEID_SCOPE are set)"),
    ] {
        let ended = run_with_variables(&args, variables);
        assert!(ended.code == 2 && ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[test]
fn a_401_without_credentials_says_which_flags_to_give() {
    let server = Script::start(|_, _, stream| {
        let headers = "www-authenticate: DPoP algs=\"ES256\"\r\n";
        write(stream, answer("401 Unauthorized", headers, r#"{"detail":"Who is calling?"}"#));
    });
    let issuer = issuer();
    let told = "the server answered 401 Unauthorized: Who is calling?";
    let hint = "; give --helseid-issuer, --helseid-client-id and --helseid-key-file to sign in";
    let key = Key::with(KEY, 0o600);
    let who = ["--helseid-issuer", &issuer.url, "--helseid-client-id", "journal"];
    let credentials = [&who[..], &["--helseid-key-file", key.path()]].concat();
    for line in [
        "poll --offset 5",
        "poll --offset 5 --follow-pages",
        "stream --offset 5",
        "stream --from-now",
        DRAFT,
    ] {
        for (flags, ends) in [(&[][..], format!("{told}{hint}")), (&credentials, told.to_owned())] {
            let ended = run(&command(line, &[&["--url", &server.url], flags].concat()));
            assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{line}: {}", ended.stderr);
            assert!(ended.last_word().ends_with(&ends), "{line}: {}", ended.stderr);
        }
    }
}

#[test]
fn credentials_that_cannot_be_used_are_wrong_usage_and_named() {
    let (key, broken) = (Key::with(KEY, 0o600), Key::with("hunter2", 0o644));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = Key::with(encrypted, 0o600);
    let good = ["--helseid-key-file", key.path()];
    for (flags, told) in [
        (&["--helseid-key-file", "/no/such/file"][..], "--helseid-key-file /no/such/file: No such"),
        (&["--helseid-key-file", "/"], "--helseid-key-file /: Is a directory"),
        (&["--helseid-key-file", broken.path()], "key: it is neither a private JWK nor PEM"),
        (&[good[0], good[1], "--url", "http://herald.example"], "https:// unless it is on this"),
        (
            &[good[0], good[1], "--helseid-scope", " "],
            "--helseid-scope: a scope is one or more words",
        ),
        (
            &["--helseid-key-file", encrypted.path()],
            "key: it is encrypted and must be decrypted first",
        ),
    ] {
        let ended = poll(flags);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("warning"), "what is no key is nobody's: {}", ended.stderr);
    }
    for (name, value) in
        [("--helseid-issuer", "http://issuer.example"), ("--helseid-client-id", " ")]
    {
        let all = ["--helseid-issuer", "http://127.0.0.1:1", "--helseid-client-id", "x"];
        let mut flags = [&all[..], &good].concat();
        let at = flags.iter().position(|flag| *flag == name).unwrap();
        flags[at + 1] = value;
        let ended = run(&command("poll --offset 5", &flags));
        assert!(ended.code == 2 && ended.stderr.contains(name), "{}", ended.stderr);
    }
    for name in ["--helseid-issuer", "--helseid-client-id", "--helseid-key-file"] {
        assert_eq!(run(&command("poll --offset 5", &[name, ""])).code, 2, "{name}");
    }
}

#[test]
fn a_key_file_is_read_up_to_64_kib() {
    for (bytes, told) in
        [(64 * 1024, "neither a private JWK nor PEM"), (64 * 1024 + 1, "65536 bytes")]
    {
        let ended = poll(&["--helseid-key-file", Key::with(vec![b'x'; bytes], 0o600).path()]);
        assert!(ended.code == 2 && ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[test]
fn a_key_file_that_others_may_read_or_change_is_warned_of() {
    let (issuer, server) = (issuer(), server());
    for (mode, is_warned_of) in
        [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)]
    {
        let key = Key::with(KEY, mode);
        let flags = ["--url", &server.url, "--helseid-issuer", &issuer.url];
        let who = ["--helseid-client-id", "journal", "--helseid-key-file", key.path()];
        let ended = run(&command("poll --offset 5", &[&flags[..], &who].concat()));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let warning = format!("warning: others than its owner may read or change {}", key.path());
        assert_eq!(ended.stderr.contains(&warning), is_warned_of, "{mode:o}: {}", ended.stderr);
    }
}

#[test]
fn a_client_that_the_issuer_does_not_know_ends_with_1_and_its_words() {
    let issuer = Script::start(|_, request, stream| {
        let url = format!("http://{}", request.header("host").unwrap());
        write(
            stream,
            if request.target().starts_with("GET") {
                answer("200 OK", "", format!(r#"{{"issuer":"{url}","token_endpoint":"{url}/t"}}"#))
            } else {
                let body = r#"{"error":"invalid_client","error_description":"who?"}"#;
                answer("401 Unauthorized", "", body)
            },
        );
    });
    let (server, key) = (server(), Key::with(KEY, 0o600));
    for line in ["poll --offset 5", "stream --offset 5", DRAFT] {
        let flags = ["--url", &server.url, "--helseid-issuer", &issuer.url];
        let who = ["--helseid-client-id", "journal", "--helseid-key-file", key.path()];
        let ended = run(&command(line, &[&flags[..], &who].concat()));
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{line}: {}", ended.stderr);
        let told = format!(
            "no token from {}: the issuer answered 401 Unauthorized: invalid_client: who?",
            issuer.url
        );
        assert!(ended.last_word().ends_with(&told), "{}", ended.stderr);
    }
    assert_eq!(server.requests().len(), 0);
}
