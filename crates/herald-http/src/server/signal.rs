//! Something that is said once to every connection.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Given once, to all who listen.
#[derive(Debug, Default)]
pub(super) struct Signal {
    // What a listener looks at each time it is polled for something else: the token would take a lock that all
    // connections share.
    is_given: AtomicBool,
    token: CancellationToken,
}

impl Signal {
    pub(super) fn give(&self) {
        // Before the wake-ups, so that whoever is woken sees it.
        self.is_given.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Ready when it is given.
    pub(super) async fn given(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn listen(&self) -> Listener {
        Listener { given: self.token.clone().cancelled_owned(), is_registered: false }
    }
}

pin_project! {
    /// One task that listens. It must always be polled by the same task: it registers only once.
    pub(super) struct Listener {
        #[pin]
        given: WaitForCancellationFutureOwned,
        is_registered: bool,
    }
}

impl Listener {
    pub(super) fn poll_given(self: Pin<&mut Self>, signal: &Signal, cx: &mut Context<'_>) -> bool {
        if signal.is_given.load(Ordering::Acquire) {
            return true;
        }
        let this = self.project();
        if *this.is_registered {
            return false;
        }
        *this.is_registered = true;
        matches!(this.given.poll(cx), Poll::Ready(()))
    }
}
