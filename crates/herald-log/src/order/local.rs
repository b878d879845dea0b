//! One node: the commit of the view *is* the log. One write and one sync for a whole group, never a conflict.

use std::{io, sync::Arc};

use super::{Order, OrderError};
use crate::{
    frame::{Batch, Frame},
    view::View,
};

/// The order of a single node.
pub(crate) struct Local {
    pub(crate) view: Arc<View>,
}

impl Order for Local {
    async fn append(&self, batch: Batch) -> Result<Frame, OrderError> {
        let view = Arc::clone(&self.view);
        let committed = tokio::task::spawn_blocking(move || view.commit(&batch)).await;
        committed.unwrap_or_else(|panic| {
            // How far it came nobody knows, as after a failed sync.
            self.view.poison();
            Err(OrderError::Unknown(io::Error::other(panic)))
        })
    }

    fn idle(&self) {
        let view = Arc::clone(&self.view);
        // Not waited for: whichever batch it comes behind was committed before it.
        drop(tokio::task::spawn_blocking(move || view.mark_end()));
    }
}
