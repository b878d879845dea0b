//! A GET, and no more of HTTP than that: the rig asks health, metrics and monitoring pages.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A component that is stopped takes the connection and never answers.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// An answer's status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks once.
pub(crate) async fn get(address: SocketAddr, target: &str) -> anyhow::Result<Answer> {
    timeout(ANSWER_WAIT, ask(address, target))
        .await
        .with_context(|| format!("no answer from {address} within {ANSWER_WAIT:?}"))?
}

async fn ask(address: SocketAddr, target: &str) -> anyhow::Result<Answer> {
    let mut socket = TcpStream::connect(address).await?;
    // 1.0: the body ends with the connection, and comes without chunks.
    let request = format!("GET {target} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    parse(&answer).with_context(|| format!("{address} does not speak HTTP"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nnot yet\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not yet\r\n"));
        assert!(parse("SSH-2.0-x\r\n\r\n").is_none());
    }
}
