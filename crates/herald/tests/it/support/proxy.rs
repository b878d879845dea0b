//! An address that stays while the servers behind it come and go, and a way there on which everything can go wrong.
//!
//! Each request gets a connection of its own to the server and a [`Fault`], which the test's plan chooses by who is
//! asking for what, and how often that has been so: the chance of a schedule is in its seed, not in who connects first.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::script::Request;

/// The target of a stream.
pub(crate) const STREAM: &str = "GET /notifications/stream";
/// The target of a poll.
pub(crate) const POLL: &str = "GET /notifications";
/// The longest request head; 1500 HER-ids are half of it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What happens to one answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// It breaks off behind so many of its bytes; at 0 the server has answered, too, and nobody hears it.
    Cut { at: usize, end: End },
    /// A gateway takes its chunks apart: its end is that of the connection, and a break behind so many bytes looks the same.
    Unframed { at: usize },
    /// It begins so much later; the server has written it at once.
    Late(Duration),
    /// It comes in pieces of so many bytes, with a pause behind each.
    Pieces { bytes: usize, pause: Duration },
    /// The size of its chunk of this number, counted from 0, is not that of the chunk; then the connection closes.
    Chunk { number: usize, size: Size },
    /// A gateway answers, and the server is not asked.
    Answer(Vec<u8>),
}

/// How a connection breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As if the server had no more to say.
    Close,
    /// RST instead of FIN.
    Reset,
    /// Not at all: nothing comes any more, and nobody says so.
    Silence,
}

/// A chunk's size that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// No number.
    Garbage,
    /// More than there is.
    TooLarge,
    /// Less than there is, with all of it behind.
    TooSmall,
    /// Half of the chunk, and then the chunk that says that the body has ended well.
    HalfAndTheEnd,
}

type Plan = dyn Fn(&Request, usize) -> Fault + Send + Sync;
/// How often each caller (its `nhn-source-system`) has asked for each target.
type Asked = HashMap<(String, String), usize>;

/// The proxy. Dropping it closes its address and every connection.
pub(crate) struct Proxy {
    pub(crate) url: String,
    server: watch::Sender<SocketAddr>,
    asked: Arc<watch::Sender<Asked>>,
    accepting: AbortHandle,
}

/// Proxies run beside the tests: some of these block their thread.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime for the proxies")
});

impl Proxy {
    /// A proxy that does no harm.
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self::start(server, |_, _| Fault::Pass)
    }

    /// A proxy that does as `plan` says for each request; it is told how often this caller has asked for this target.
    pub(crate) fn start(
        server: SocketAddr,
        plan: impl Fn(&Request, usize) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("a listener can be asked not to block");
        let (server, servers) = watch::channel(server);
        let asked = Arc::new(watch::Sender::new(Asked::new()));
        let way = Way { servers, plan: Arc::new(plan), asked: Arc::clone(&asked) };
        let accepting = RUNTIME.spawn(accept(listener, way)).abort_handle();
        Self { url, server, asked, accepting }
    }

    /// From now on connections go there, and those that are open end, as when a balancer takes a server out.
    pub(crate) fn switch(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// How often this caller has asked for this target.
    pub(crate) fn asked(&self, caller: &str, target: &str) -> usize {
        count(&self.asked.borrow(), caller, target)
    }

    /// Waits until this caller has asked for so many streams.
    pub(crate) async fn streams_asked(&self, caller: &str, streams: usize) {
        let mut asked = self.asked.subscribe();
        let waited = asked.wait_for(|asked| count(asked, caller, STREAM) >= streams).await;
        waited.expect("the proxy is there");
    }
}

fn count(asked: &Asked, caller: &str, target: &str) -> usize {
    asked.get(&(caller.to_owned(), target.to_owned())).copied().unwrap_or_default()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// All that a connection needs.
#[derive(Clone)]
struct Way {
    servers: watch::Receiver<SocketAddr>,
    plan: Arc<Plan>,
    asked: Arc<watch::Sender<Asked>>,
}

async fn accept(listener: std::net::TcpListener, way: Way) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => connections.spawn(way.clone().carry(client)),
            // Nobody needs to know how a connection ended, but the set must not grow.
            Some(_) = connections.join_next() => continue,
        };
    }
}

impl Way {
    /// Carries one request and its answer. Any failure ends both connections.
    async fn carry(mut self, mut client: TcpStream) {
        client.set_nodelay(true).ok();
        let Ok((head, rest)) = read_head(&mut client).await else { return };
        let fault = (self.plan)(&head, self.note(&head));
        if let Fault::Answer(answer) = &fault {
            client.write_all(answer).await.ok();
            return;
        }
        let address = *self.servers.borrow_and_update();
        let moved = self.servers.changed();
        // Without a server the client's connection is closed, as it would be by a balancer.
        let Ok(mut server) = TcpStream::connect(address).await else { return };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = async {
            to_server.write_all(&[head_text(&head).as_bytes(), &rest].concat()).await?;
            tokio::io::copy(&mut from_client, &mut to_server).await
        };
        let end = tokio::select! {
            // The client has closed, or there is another server: there is nobody to carry for.
            _ = up => End::Close,
            _ = moved => End::Close,
            end = fault.carry(&mut from_server, &mut to_client) => end,
        };
        if end == End::Reset {
            client.set_zero_linger().ok();
        }
    }

    fn note(&self, request: &Request) -> usize {
        let caller = request.header("nhn-source-system").unwrap_or_default().to_owned();
        let mut before = 0;
        self.asked.send_modify(|asked| {
            let count = asked.entry((caller, request.target().to_owned())).or_default();
            before = *count;
            *count += 1;
        });
        before
    }
}

/// A request without its body, and what of that has come already.
async fn read_head(client: &mut TcpStream) -> io::Result<(Request, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = find(&read, b"\r\n\r\n") {
            break end;
        }
        let came = client.read_buf(&mut read).await?;
        if came == 0 || read.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let rest = read.split_off(end + 4);
    let head = String::from_utf8_lossy(&read[..end]).lines().map(str::to_owned).collect();
    Ok((Request { head, body: Vec::new() }, rest))
}

/// The head as the server gets it: after the answer both connections end, so that the next request has a fault of its own.
fn head_text(request: &Request) -> String {
    let (line, headers) = request.head.split_first().expect("a head has a first line");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line}\r\nconnection: close\r\n{headers}\r\n")
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

impl Fault {
    /// Carries an answer to its end, which may be none.
    async fn carry(&self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> End {
        match self.carry_until(from, to).await.unwrap_or(End::Close) {
            End::Silence => std::future::pending().await,
            end => end,
        }
    }

    async fn carry_until(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
    ) -> io::Result<End> {
        if let Self::Late(by) = self {
            sleep(*by).await;
        }
        // All of the answer, and up to where it has been written.
        let (mut answer, mut written) = (Vec::new(), 0);
        while from.read_buf(&mut answer).await? > 0 {
            match self {
                Self::Cut { at, end } if answer.len() >= *at => {
                    to.write_all(&answer[written..*at]).await?;
                    return Ok(*end);
                }
                Self::Chunk { number, size } => {
                    if let Some(wrong) = with_wrong_chunk(&answer, *number, *size) {
                        to.write_all(&wrong).await?;
                        return Ok(End::Close);
                    }
                    continue;
                }
                Self::Unframed { at } => {
                    let unframed = unframed(&answer);
                    let until = unframed.len().min(*at);
                    to.write_all(&unframed[written..until]).await?;
                    written = until;
                    if written == *at {
                        return Ok(End::Close);
                    }
                    continue;
                }
                Self::Pieces { bytes, pause } => {
                    for piece in answer[written..].chunks(*bytes) {
                        to.write_all(piece).await?;
                        // The shortest sleep takes a millisecond.
                        if !pause.is_zero() {
                            sleep(*pause).await;
                        }
                    }
                }
                _ => to.write_all(&answer[written..]).await?,
            }
            written = answer.len();
        }
        if let Self::Chunk { .. } = self {
            // It had no such chunk.
            to.write_all(&answer).await?;
        }
        Ok(End::Close)
    }
}

/// A chunked answer up to this chunk, and that one wrong; `None` until all of it has come.
fn with_wrong_chunk(answer: &[u8], number: usize, size: Size) -> Option<Vec<u8>> {
    let mut start = find(answer, b"\r\n\r\n")? + 4;
    for _ in 0..number {
        start += chunk(&answer[start..])?.1;
    }
    let (data, _) = chunk(&answer[start..])?;
    let half = data.len() / 2;
    let (line, data) = match size {
        Size::Garbage => ("zz".to_owned(), data),
        Size::TooLarge => (format!("{:x}", data.len() + 100), data),
        Size::TooSmall => (format!("{half:x}"), data),
        Size::HalfAndTheEnd => (format!("{half:x}"), &data[..half]),
    };
    let the_end = if size == Size::HalfAndTheEnd { "0\r\n\r\n" } else { "" };
    let before = &answer[..start];
    let parts = [before, line.as_bytes(), b"\r\n", data, b"\r\n", the_end.as_bytes()];
    Some(parts.concat())
}

/// A chunked answer as far as its chunks are whole, without their frames.
fn unframed(answer: &[u8]) -> Vec<u8> {
    let Some(end) = find(answer, b"\r\n\r\n") else { return Vec::new() };
    let (head, mut rest) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).replace("transfer-encoding: chunked\r\n", "");
    let mut unframed = head.into_bytes();
    while let Some((data, length)) = chunk(rest) {
        unframed.extend_from_slice(data);
        rest = &rest[length..];
    }
    unframed
}

/// The data of the chunk that begins here, and the length of all of it.
fn chunk(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let line = find(bytes, b"\r\n")?;
    let size = str::from_utf8(&bytes[..line]).ok()?;
    let size = usize::from_str_radix(size, 16).ok()?;
    let data = bytes.get(line + 2..line + 2 + size)?;
    bytes.get(line + 2 + size..line + 4 + size)?;
    Some((data, line + 4 + size))
}
