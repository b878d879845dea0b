//! One node: the commit of the view *is* the log. One write and one sync for a whole group, never a conflict.

use std::{convert::Infallible, future::pending, io, sync::Arc};

use super::{Order, OrderError};
use crate::{
    frame::{Batch, Frame},
    surroundings,
    view::View,
};

/// The order of a single node.
pub(crate) struct Local {
    pub(crate) view: Arc<View>,
}

impl Order for Local {
    /// Nothing comes from elsewhere.
    type News = Infallible;

    async fn turn(&mut self) {}

    async fn append(&mut self, batch: Batch) -> Result<Frame, OrderError> {
        let view = Arc::clone(&self.view);
        let committed = surroundings::spawn_blocking(move || view.commit(&batch)).await;
        committed.unwrap_or_else(|panic| {
            // How far it came nobody knows, as after a failed sync.
            self.view.poison();
            Err(OrderError::Unknown(io::Error::other(panic)))
        })
    }

    async fn news(&mut self) -> Infallible {
        pending().await
    }

    async fn take(&mut self, news: Infallible) {
        match news {}
    }

    fn idle(&self) {
        let view = Arc::clone(&self.view);
        // Not waited for: whichever batch it comes behind was committed before it.
        drop(surroundings::spawn_blocking(move || view.mark_end()));
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        disk::memory::MemoryDisk,
        view::tests::{Run, open, read_all},
    };

    #[tokio::test]
    async fn a_commit_that_panics_poisons_the_log() {
        let disk = MemoryDisk::default();
        let (view, mut run) = (Arc::new(open(&disk)), Run::new(StdRng::seed_from_u64(3)));
        let mut local = Local { view: Arc::clone(&view) };
        let batch = run.batch(&view);
        local.append(batch).await.unwrap();
        let before = read_all(&view).unwrap();
        let impossible = Batch { trim_point: u64::MAX, ..run.batch(&view) };
        assert!(matches!(local.append(impossible).await, Err(OrderError::Unknown(_))));
        assert!(view.is_poisoned(), "health says so at once");
        let batch = run.batch(&view);
        assert!(matches!(local.append(batch).await, Err(OrderError::Poisoned)));
        view.close();
        assert_eq!(read_all(&view).unwrap(), before);
        assert_eq!(read_all(&open(&disk)).unwrap(), before);
    }
}
