//! TLS with `curl` and `openssl`, each with a TLS library of its own.

use super::{program, run};
use crate::support::{certificates::Certificates, server::Server};

#[tokio::test]
async fn curl_and_openssl_speak_tls_with_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let path = |name| made.path(name);
    let (cert, key, ca) = (path("server.pem"), path("server-key.pem"), path("ca.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let server = Server::start(&dir.path().join("data"), &flags).await;

    let url = format!("https://localhost:{}", server.api.port());
    let resolve = format!("localhost:{}:127.0.0.1", server.api.port());
    let curl = |flags: &[&str]| {
        let mut curl = program("curl");
        curl.args(["--silent", "--show-error", "--cacert", &ca, "--resolve", &resolve]);
        curl.args(["-H", "api-version: 3", "-H", "nhn-source-system: curl/1"]);
        curl.args(["--write-out", "\n%{http_version} %{http_code}"]).args(flags);
        String::from_utf8(run(&mut curl).stdout).expect("UTF-8")
    };
    let poll = format!("{url}/notifications?HerIds=8139764&Offset=0");
    for tls in ["1.2", "1.3"] {
        let only = ["--tls-max", tls, &format!("--tlsv{tls}")];
        let answer = curl(&[&only[..], &["--http2", &poll]].concat());
        assert_eq!(answer, "{\"notifications\":[]}\n2 200", "{tls}");
        let answer = curl(&[&only[..], &["--http1.1", &poll]].concat());
        assert_eq!(answer, "{\"notifications\":[]}\n1.1 200", "{tls}");
    }
    let draft = r#"{"notifications":[{"relatedMessageId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
        "type":"NewMessage","notificationReceiverHerId":8139764}]}"#;
    let append = ["--data", draft, "-H", "content-type: application/json"];
    let to = format!("{url}/notifications");
    assert!(curl(&[&append[..], &[&to]].concat()).ends_with("\n2 403"));
    let (client, client_key) = (path("client.pem"), path("client-key.pem"));
    let with = ["--cert", &client, "--key", &client_key, &to];
    assert!(curl(&[&append[..], &with].concat()).ends_with("\n2 201"));
    let stream = format!("{url}/notifications/stream?HerIds=8139764&Offset=0");
    let mut streaming = program("curl");
    streaming.args(["--silent", "--no-buffer", "--http1.1", "--cacert", &ca, "--resolve"]);
    streaming.args([&resolve, "-H", "api-version: 3", "-H", "nhn-source-system: curl/1"]);
    streaming.args(["-H", "accept: text/event-stream", "--max-time", "60", &stream]);
    let mut child = streaming.stdout(std::process::Stdio::piped()).spawn().expect("curl");
    // The server's stop ends the stream, with an end of TLS that curl takes for one.
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    assert!(lines.any(|line| line.expect("UTF-8").starts_with("data: {")));
    server.signal("-TERM");
    lines.for_each(drop);
    assert!(child.wait().expect("a child").success());
}

#[tokio::test]
async fn openssl_is_refused_what_is_older_than_tls_1_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let path = |name| made.path(name);
    let (cert, key, ca) = (path("server.pem"), path("server-key.pem"), path("ca.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(&dir.path().join("data"), &flags).await;
    let address = server.api.to_string();
    let hello = |flags: &[&str]| {
        let mut openssl = program("openssl");
        openssl.args(["s_client", "-connect", &address, "-servername", "localhost"]);
        openssl.args(["-CAfile", &ca, "-verify_return_error", "-alpn", "h2,http/1.1"]);
        let output = openssl.args(flags).output().expect("openssl is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    for flag in ["-tls1_2", "-tls1_3"] {
        let (is_success, text) = hello(&[flag]);
        assert!(is_success && text.contains("ALPN protocol: h2"), "{flag}: {text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{flag}: {text}");
    }
    for flag in ["-tls1", "-tls1_1"] {
        // At a level of security at which openssl itself would go on.
        let (is_success, text) = hello(&[flag, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!is_success && text.contains("SSL alert number"), "{flag}: {text}");
    }
}
