//! Looks after idle connections, so that those which the other side has closed
//! do not pile up. One task for a node, which runs only while there are any.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{Inner, Origin};

/// How often they are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

impl Inner {
    /// Sees to it that the task runs.
    pub(super) fn sweep(self: &Arc<Self>) {
        if self.swept.load(Ordering::SeqCst) || self.swept.swap(true, Ordering::SeqCst) {
            return;
        }
        let running = Running(Arc::downgrade(self));
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            // However it ends, even with the runtime that it is on, the next
            // connection starts it again.
            let mut running = running;
            if shutdown.run_until_cancelled(run(&running.0)).await.is_some() {
                running.0 = Weak::new();
            }
        });
    }

    fn sweep_once(&self) {
        let origins: Vec<Arc<Origin>> = self.origins.lock().values().filter_map(Weak::upgrade).collect();
        for origin in origins {
            origin.sweep();
        }
    }
}

/// Until there is nothing to look after; says so itself.
async fn run(pool: &Weak<Inner>) {
    loop {
        sleep(INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.meters.open() == 0 {
            pool.swept.store(false, Ordering::SeqCst);
            // One may have been opened meanwhile, by somebody who saw that this runs.
            if pool.meters.open() == 0 || pool.swept.swap(true, Ordering::SeqCst) {
                return;
            }
        }
        pool.sweep_once();
    }
}

struct Running(Weak<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.swept.store(false, Ordering::SeqCst);
        }
    }
}
