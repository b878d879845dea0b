//! TCP proxies whose ways are cut, healed and slowed.

use std::{
    collections::HashMap, future, io, net::SocketAddr, num::NonZeroU32, sync::LazyLock,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::ports::Port;

/// What is read at once, in bytes.
const CHUNK_LEN: usize = 16 * 1024;
/// How many chunks of one direction are on their way: with a delay of 100 ms still 10 MB/s.
const CHUNKS_MAX: usize = 64;

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Open connections are reset, new ones refused: as when a process is gone.
    Reset,
    /// Nothing comes through, and nobody says so: as when a cable is pulled. New connections open and hear nothing. What was
    /// on its way comes when the link heals.
    Silence,
}

/// How slow a link is, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How much later everything comes.
    pub delay: Duration,
    /// How much comes through in a second; `None` is all.
    pub bytes_per_second: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    cut: Option<Cut>,
    pace: Pace,
}

/// An address that leads to another one, until it is cut. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct Link {
    port: Port,
    target: SocketAddr,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

/// Links run beside the tests: some of these block their thread, or stop the clock.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime for the links")
});

impl Link {
    /// A link that does no harm.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let port = Port::free()?;
        let listener = listen(port.address()).context("could not listen for a link")?;
        let (state, states) = watch::channel(State::default());
        let way = Track { target, states };
        let accepting = RUNTIME.spawn(way.accept(port.address(), listener)).abort_handle();
        Ok(Self { port, target, state, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Cuts it; a cut of the other kind may follow.
    pub fn cut(&self, how: Cut) {
        self.state.send_modify(|state| state.cut = Some(how));
    }

    /// Connects it again; its pace stays.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.cut = None);
    }

    /// Whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state.borrow().cut.is_some()
    }

    /// Makes it slow, or fast again with `Pace::default()`.
    pub fn slow(&self, pace: Pace) {
        self.state.send_modify(|state| state.pace = pace);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Links from one place to every node of an engine, and the engine's URL through them: whoever has only this URL can be cut
/// off from the engine, or from some of its nodes.
#[derive(Debug)]
pub struct Way {
    url: String,
    links: Vec<Link>,
}

impl Way {
    /// `url` writes the URL from the addresses that stand for the nodes.
    pub(crate) fn new(
        nodes: &[SocketAddr],
        url: impl FnOnce(&[SocketAddr]) -> String,
    ) -> anyhow::Result<Self> {
        let links = nodes.iter().map(|node| Link::to(*node)).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses: Vec<SocketAddr> = links.iter().map(Link::address).collect();
        Ok(Self { url: url(&addresses), links })
    }

    /// The engine's URL, through the links.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The links, one by node.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Cuts all of them.
    pub fn cut(&self, how: Cut) {
        self.links.iter().for_each(|link| link.cut(how));
    }

    /// Heals all of them.
    pub fn heal(&self) {
        self.links.iter().for_each(Link::heal);
    }

    /// Makes all of them slow.
    pub fn slow(&self, pace: Pace) {
        self.links.iter().for_each(|link| link.slow(pace));
    }
}

/// A link from each node to each other.
#[derive(Debug, Default)]
pub(crate) struct Mesh(HashMap<(usize, usize), Link>);

impl Mesh {
    pub(crate) fn between(nodes: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut links = HashMap::new();
        for from in 0..nodes.len() {
            for (to, target) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                links.insert((from, to), Link::to(*target)?);
            }
        }
        Ok(Self(links))
    }

    /// Where `from` finds `to`.
    pub(crate) fn address(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.0.get(&(from, to)).map(Link::address)
    }

    /// Both links between two nodes; either may have opened what they talk through.
    pub(crate) fn pair(&self, a: usize, b: usize) -> impl Iterator<Item = &Link> {
        [(a, b), (b, a)].into_iter().filter_map(|pair| self.0.get(&pair))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// All that a connection needs.
#[derive(Clone)]
struct Track {
    target: SocketAddr,
    states: watch::Receiver<State>,
}

impl Track {
    async fn accept(mut self, address: SocketAddr, listener: std::net::TcpListener) {
        let mut listener = TcpListener::from_std(listener).ok();
        let mut connections = JoinSet::new();
        loop {
            let cut = self.states.borrow_and_update().cut;
            if cut == Some(Cut::Reset) {
                listener = None;
            } else if listener.is_none() {
                // The port is this link's; only a connection that is just being reset may be in the way.
                listener = listen(address).and_then(TcpListener::from_std).ok();
                if listener.is_none() {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
            tokio::select! {
                Ok(client) = next(listener.as_ref().filter(|_| cut.is_none())) => {
                    connections.spawn(self.clone().carry(client));
                }
                // Nobody needs to know how a connection ended, but the set must not grow.
                Some(_) = connections.join_next() => {}
                changed = self.states.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Carries one connection. However one side of it ends, so does the other.
    async fn carry(mut self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(self.target).await else {
            client.set_zero_linger().ok();
            return;
        };
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let states = self.states.clone();
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, states.clone()),
                pump(from_server, to_client, states.clone()),
            )
        };
        let ended_well = tokio::select! {
            ended = both => ended.is_ok(),
            _ = self.states.wait_for(|state| state.cut == Some(Cut::Reset)) => false,
        };
        if !ended_well {
            client.set_zero_linger().ok();
            server.set_zero_linger().ok();
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => future::pending().await,
    }
}

/// One direction of one connection, until its end has come through.
async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    states: watch::Receiver<State>,
) -> io::Result<()> {
    // Reading goes on while what was read waits: a delay must not be a limit.
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(read(from, sender, states.clone()), write(to, chunks, states))?;
    Ok(())
}

type Chunk = (Instant, Vec<u8>);

async fn read(
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<Chunk>,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        open(&mut states).await;
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let due = Instant::now() + states.borrow().pace.delay;
        if chunks.send((due, buffer[..len].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut chunks: mpsc::Receiver<Chunk>,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    while let Some((due, bytes)) = chunks.recv().await {
        sleep_until(due).await;
        let rate = states.borrow().pace.bytes_per_second;
        if let Some(rate) = rate {
            let seconds = bytes.len() as f64 / f64::from(rate.get());
            sleep(Duration::from_secs_f64(seconds)).await;
        }
        open(&mut states).await;
        to.write_all(&bytes).await?;
    }
    open(&mut states).await;
    to.shutdown().await
}

/// Waits until nothing keeps bytes back.
async fn open(states: &mut watch::Receiver<State>) {
    // A link that is gone takes its connections with it.
    states.wait_for(|state| state.cut != Some(Cut::Silence)).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        address
    }

    async fn ask(socket: &mut TcpStream, byte: u8) -> io::Result<u8> {
        socket.write_u8(byte).await?;
        socket.read_u8().await
    }

    #[tokio::test]
    async fn a_link_that_is_reset_breaks_what_is_open_and_refuses_what_is_new_until_it_heals() {
        let link = Link::to(echo().await).unwrap();
        let mut open = TcpStream::connect(link.address()).await.unwrap();
        assert_eq!(ask(&mut open, 7).await.unwrap(), 7);
        link.cut(Cut::Reset);
        assert!(link.is_cut());
        let broken = open.read_u8().await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
        // The listener closes a moment later: what slips in until then is reset.
        while TcpStream::connect(link.address()).await.is_ok() {}
        link.heal();
        let mut new = loop {
            if let Ok(socket) = TcpStream::connect(link.address()).await {
                break socket;
            }
        };
        assert_eq!(ask(&mut new, 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn what_a_silent_link_has_kept_back_comes_when_it_heals() {
        let link = Link::to(echo().await).unwrap();
        let mut open = TcpStream::connect(link.address()).await.unwrap();
        assert_eq!(ask(&mut open, 1).await.unwrap(), 1);
        link.cut(Cut::Silence);
        let mut new = TcpStream::connect(link.address()).await.unwrap();
        let (mut healed, heal) = (false, async {
            // Both have asked by now; whoever were answered would be it before the link heals.
            tokio::time::sleep(Duration::from_millis(50)).await;
            link.heal();
        });
        let answers = async { tokio::try_join!(ask(&mut open, 2), ask(&mut new, 3)) };
        tokio::pin!(answers);
        tokio::select! {
            biased;
            () = heal => healed = true,
            _ = &mut answers => {}
        }
        assert!(healed, "an answer came through");
        assert_eq!(answers.await.unwrap(), (2, 3));
    }

    #[tokio::test]
    async fn a_slow_link_takes_its_time() {
        let link = Link::to(echo().await).unwrap();
        let delay = Duration::from_millis(40);
        link.slow(Pace { delay, bytes_per_second: NonZeroU32::new(100) });
        let mut socket = TcpStream::connect(link.address()).await.unwrap();
        let began = Instant::now();
        assert_eq!(ask(&mut socket, 7).await.unwrap(), 7);
        // There and back; and a byte is 10 ms each way.
        assert!(began.elapsed() >= 2 * (delay + Duration::from_millis(10)));
    }

    #[tokio::test]
    async fn a_connection_to_nobody_is_reset_and_one_that_ends_ends_on_both_sides() {
        let nobody = Port::free().unwrap();
        let link = Link::to(nobody.address()).unwrap();
        let mut socket = TcpStream::connect(link.address()).await.unwrap();
        assert!(socket.read_u8().await.is_err());

        let link = Link::to(echo().await).unwrap();
        let mut socket = TcpStream::connect(link.address()).await.unwrap();
        socket.write_all(b"to the end").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"to the end");
    }
}
