//! Real balancers in front of servers of a few lines.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use herald_rig::balancer::{Backend, Balancer, Kind};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A server that answers every request with its name and whatever status it is told to.
#[derive(Clone)]
struct Server {
    backend: Backend,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(name: &str) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ops = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let backend = Backend {
            name: name.to_owned(),
            api: api.local_addr().expect("an address"),
            ops: ops.local_addr().expect("an address"),
        };
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::default());
        let server = Self { backend, status, asked };
        tokio::spawn(server.clone().answer(api));
        // Always ready: what is tested is what happens to a request that meets one that is not.
        let ready = Self { status: Arc::new(AtomicU16::new(200)), ..server.clone() };
        tokio::spawn(Self { asked: Arc::default(), ..ready }.answer(ops));
        server
    }

    async fn answer(self, listener: TcpListener) {
        while let Ok((mut socket, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                server.asked.fetch_add(1, Ordering::Relaxed);
                let (name, status) = (&server.backend.name, server.status.load(Ordering::Relaxed));
                let len = name.len();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{name}"
                );
                socket.write_all(answer.as_bytes()).await.ok();
                socket.shutdown().await.ok();
                // Until the other side has closed, so that no byte of a body is answered with a reset.
                while socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            });
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn send(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the balancer listens");
    socket.write_all(request.as_bytes()).await.expect("the balancer reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("the balancer answers");
    answer
}

async fn get(address: SocketAddr, target: &str) -> String {
    send(address, &format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

async fn routes_around_and_changes(kind: Kind) {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let both = [one.backend.clone(), two.backend.clone()];
    let balancer = Balancer::start(kind, &both[..1]).await.expect("a balancer");
    let address = balancer.address();
    assert!(get(address, "/").await.ends_with("\r\n\r\none"));
    // As long as 1500 HER-ids.
    let long = format!("/?{}", "HerIds=12345678&".repeat(1700));
    assert!(get(address, &long).await.ends_with("\r\n\r\none"), "a long request line");

    // One that answers 503 is never what a client hears of while there is another.
    balancer.set(&both).await.expect("a change");
    one.status.store(503, Ordering::Relaxed);
    let before = one.asked();
    while one.asked() == before {
        let answer = get(address, "/").await;
        assert!(answer.ends_with("\r\n\r\ntwo"), "{answer}");
    }
    // What is to be stored is its sender's to repeat: a 503 may say that it is unknown whether it is.
    let post = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\ndraft";
    loop {
        let before = (one.asked(), two.asked());
        let answer = send(address, post).await;
        if one.asked() > before.0 {
            assert!(answer.ends_with("\r\n\r\none"), "{answer}");
            assert_eq!(two.asked(), before.1, "nobody else is asked");
            break;
        }
        assert!(answer.ends_with("\r\n\r\ntwo"), "{answer}");
    }

    // One that is out of it is asked no more.
    one.status.store(200, Ordering::Relaxed);
    balancer.set(std::slice::from_ref(&two.backend)).await.expect("a change");
    let before = one.asked();
    for _ in 0..10 {
        assert!(get(address, "/").await.ends_with("\r\n\r\ntwo"));
    }
    assert_eq!(one.asked(), before);
    assert!(balancer.set(&[]).await.is_err(), "nobody is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_tries_a_503_elsewhere_and_changes_its_backends_while_it_runs() {
    routes_around_and_changes(Kind::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_tries_a_503_elsewhere_and_changes_its_backends_while_it_runs() {
    routes_around_and_changes(Kind::Nginx).await;
}
