//! Who is woken when a connection can go on.
//!
//! A connection passes from task to task, but what it is registered with holds
//! on to the waker that polled it last: an idle connection would keep a task's
//! memory, and its next use would wake whoever used it before. So a connection
//! is always polled with a waker of its own, which passes wakes on to whoever
//! waits now, and to nobody while nobody waits.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use parking_lot::Mutex;

#[derive(Default)]
pub struct Signal {
    waiting: Mutex<Option<Waker>>,
}

impl Signal {
    /// From now on `waker` is woken, once. What happened before shows when the
    /// connection is polled, so it has to be polled after this.
    pub fn arm(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
            let before = waiting.replace(waker.clone());
            drop(waiting);
            // Dropping a waker may run code of a task.
            drop(before);
        }
    }

    /// From now on nobody is.
    pub fn disarm(&self) {
        let before = self.waiting.lock().take();
        drop(before);
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiting = self.waiting.lock().take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}
