//! An issuer that nobody here wrote, npm's oidc-provider: for the server and the client commands, and for a client that
//! nobody here wrote either.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use herald_auth::Algorithm;
use serde_json::Value;

use super::{
    program, script,
    signed_in::{CONNECTIONS, KEY, PUBLISH, READ, both_scopes, calls_are_answered, claims, server},
};
use crate::support::cli::{self, Running};

/// What oidc-provider says when it asks for a nonce.
const NONCE_ASKED: &str = "refused use_dpop_nonce";

/// npm's oidc-provider as a process of its own; dropping it kills it.
struct OidcProvider {
    child: Child,
    url: String,
    /// A line for each token and each refusal.
    told: Arc<Mutex<Vec<String>>>,
    following: Option<JoinHandle<()>>,
}

impl OidcProvider {
    /// Tokens last so many seconds.
    fn start(lifetime: u32) -> Self {
        let mut node = program("node");
        node.arg(script("oidc_provider.mjs")).args(["journal", KEY, &both_scopes(), "nhn:msh"]);
        node.args([lifetime.to_string(), claims().to_string()]);
        node.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = node.spawn().expect("the tool is installed: cargo xtask foreign");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
        let url = lines.next().expect("it says where it is");
        let told = Arc::<Mutex<Vec<String>>>::default();
        let following = std::thread::spawn({
            let told = Arc::clone(&told);
            move || lines.for_each(|line| lock(&told).push(line))
        });
        Self { child, url, told, following: Some(following) }
    }

    /// How often it has told this so far.
    fn count(&self, told: &str) -> usize {
        lock(&self.told).iter().filter(|line| *line == told).count()
    }

    /// Ends it; everything that it told.
    fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("a child").success());
        self.following.take().expect("once").join().expect("following does not panic");
        std::mem::take(&mut lock(&self.told))
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lock(told: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client command, signed in by the issuer.
fn command<'a>(line: &'a str, server: &'a str, issuer: &'a str) -> Vec<&'a str> {
    let who = ["--url", server, "--helseid-issuer", issuer, "--helseid-client-id", "journal"];
    line.split(' ').chain(who).chain(["--helseid-key-file", KEY]).collect()
}

const APPEND: &str =
    "append --type NewMessage --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0 --her-id 7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn between_oidc_provider_and_oauth4webapi_only_the_server_is_ours() {
    let home = tempfile::tempdir().expect("a directory");
    let issuer = OidcProvider::start(600);
    let server = server(&home, &issuer.url).await;
    calls_are_answered(&issuer.url, &server, &[Algorithm::Es256]);
    let told = issuer.stop();
    assert_eq!(told, [NONCE_ASKED.to_owned(), format!("granted {}", both_scopes())]);
}

/// Each has to be told a nonce, since each is a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn tokens_of_oidc_provider_are_enough_for_the_commands() {
    let home = tempfile::tempdir().expect("a directory");
    let issuer = OidcProvider::start(600);
    let server = server(&home, &issuer.url).await;
    let url = server.url();
    let run = |line: &str| cli::run(&command(line, &url, &issuer.url));
    let appended = run(APPEND);
    assert_eq!((appended.code, appended.lines().len()), (0, 1), "{}", appended.stderr);
    let polled = run("poll --offset 0 --her-id 7 --her-id 8");
    assert_eq!((polled.code, polled.lines().len()), (0, 1), "{}", polled.stderr);
    let streamed = run("stream --offset 0 --max 1 --her-id 7");
    assert_eq!((streamed.code, &streamed.stdout), (0, &polled.stdout), "{}", streamed.stderr);
    let refused = run("poll --offset 0 --her-id 7 --her-id 9");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.last_word().contains("No access to HER-id 9."), "{}", refused.stderr);
    // This issuer leaves out a scope that it does not know, where others refuse it.
    let unknown = run("poll --offset 0 --her-id 7 --helseid-scope other");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(unknown.last_word().contains("lacks the scope nhn:msh/api"), "{}", unknown.stderr);

    let granted = [PUBLISH, READ, READ, READ, "other"].map(|scope| format!("granted {scope}"));
    let told = granted.into_iter().flat_map(|granted| [NONCE_ASKED.to_owned(), granted]);
    let told: Vec<String> = told.collect();
    assert_eq!(issuer.stop(), told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn the_stream_command_outlives_its_tokens_of_oidc_provider_without_gap_or_repeat() {
    let home = tempfile::tempdir().expect("a directory");
    let issuer = OidcProvider::start(2);
    let server = server(&home, &issuer.url).await;
    let url = server.url();
    let mut stream =
        Running::start(&command("stream --ndjson --offset 0 --her-id 7", &url, &issuer.url));
    let (mut appended, mut streamed) = (Vec::new(), Vec::new());
    while issuer.count("granted nhn:msh/api") < CONNECTIONS {
        let ended = cli::run(&command(APPEND, &url, &issuer.url));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let answer: Value = serde_json::from_str(&ended.stdout).expect("an answer");
        appended.push(answer["offset"].clone());
        let line: Value = serde_json::from_str(&stream.line().expect("it goes on")).expect("JSON");
        streamed.push(line["offset"].clone());
    }
    assert_eq!(streamed, appended);
    stream.signal("TERM");
    let ended = stream.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    // The stream was told a nonce once, for all of its tokens.
    let told = issuer.stop();
    let refusals: Vec<&String> = told.iter().filter(|line| line.starts_with("refused")).collect();
    assert_eq!(refusals, vec![NONCE_ASKED; appended.len() + 1]);
}
