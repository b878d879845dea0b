//! An address that stays while the servers behind it come and go.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A TCP proxy. It goes on until the test's process ends.
pub(crate) struct Proxy {
    pub(crate) url: String,
    server: Arc<Mutex<SocketAddr>>,
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Arc::new(Mutex::new(server));
        let target = Arc::clone(&server);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let address = *target.lock().unwrap_or_else(PoisonError::into_inner);
                // Without a server the client's connection is closed, as it would be by a balancer.
                let Ok(server) = TcpStream::connect(address) else { continue };
                let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone())
                else {
                    continue;
                };
                thread::spawn(move || copy(from_client, server));
                thread::spawn(move || copy(from_server, client));
            }
        });
        Self { url, server }
    }

    /// From now on connections go there.
    pub(crate) fn switch(&self, server: SocketAddr) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}
