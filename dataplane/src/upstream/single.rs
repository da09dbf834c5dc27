//! A place for one thing that several need and one of them opens.
//!
//! Whoever comes first opens it, whoever comes meanwhile waits for that, and
//! what has ended is opened again by the next.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::gateway::call::CallError;

/// What whoever opens it reports: the thing, or why there is none.
pub type Opened<T> = Option<Result<Arc<T>, Arc<CallError>>>;

#[derive(Debug)]
pub struct Single<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Idle,
    Opening(watch::Receiver<Opened<T>>),
    Open(Arc<T>),
    Ended,
}

/// What somebody who needs the thing must do.
pub enum Step<T> {
    Use(Arc<T>),
    Wait(watch::Receiver<Opened<T>>),
    /// Open it, and tell the others.
    Open(watch::Sender<Opened<T>>, watch::Receiver<Opened<T>>),
    /// It was ended for good.
    Ended,
}

impl<T> Default for Single<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State::Idle) }
    }
}

impl<T> Single<T> {
    pub fn step(&self) -> Step<T> {
        let mut state = self.state.lock();
        match &*state {
            State::Open(thing) => Step::Use(thing.clone()),
            // While its sender lives, somebody is opening it.
            State::Opening(opened) if opened.has_changed().is_ok() => Step::Wait(opened.clone()),
            State::Ended => Step::Ended,
            State::Idle | State::Opening(_) => {
                let (tell, opened) = watch::channel(None);
                *state = State::Opening(opened.clone());
                Step::Open(tell, opened)
            }
        }
    }

    /// The thing, if it is open.
    pub fn get(&self) -> Option<Arc<T>> {
        match &*self.state.lock() {
            State::Open(thing) => Some(thing.clone()),
            _ => None,
        }
    }

    /// Whether nothing is open or being opened.
    pub fn is_idle(&self) -> bool {
        matches!(&*self.state.lock(), State::Idle | State::Ended)
    }

    /// Ends the opening; false if nobody wants the thing any more.
    pub fn opened(&self, thing: Option<&Arc<T>>) -> bool {
        let mut state = self.state.lock();
        if matches!(&*state, State::Ended) {
            return false;
        }
        *state = thing.map_or(State::Idle, |thing| State::Open(thing.clone()));
        true
    }

    /// This one is of no use any more; another one may be open by now.
    pub fn gone(&self, thing: &Arc<T>) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, thing)) {
            *state = State::Idle;
        }
    }

    /// Nobody needs it any more; what is to be closed, if anything.
    pub fn end(&self) -> Option<Arc<T>> {
        match std::mem::replace(&mut *self.state.lock(), State::Ended) {
            State::Open(thing) => Some(thing),
            _ => None,
        }
    }
}

/// Waits for whoever opens it. `None`: they are gone without a word.
pub async fn wait<T>(mut opened: watch::Receiver<Opened<T>>) -> Opened<T> {
    opened.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_opens_and_the_others_wait() {
        let single = Single::default();
        let Step::Open(tell, _) = single.step() else { panic!("nobody has opened it") };
        assert!(matches!(single.step(), Step::Wait(_)));
        drop(tell);
        assert!(matches!(single.step(), Step::Open(..)), "whoever opened it is gone");
        let open = Arc::new(1);
        assert!(single.opened(Some(&open)));
        assert!(matches!(single.step(), Step::Use(thing) if Arc::ptr_eq(&thing, &open)));
    }

    #[test]
    fn a_failed_opening_is_tried_again_by_the_next() {
        let single = Single::<u8>::default();
        assert!(matches!(single.step(), Step::Open(..)));
        assert!(single.opened(None));
        assert!(matches!(single.step(), Step::Open(..)));
    }

    #[test]
    fn late_news_of_an_old_one_does_not_close_the_new_one() {
        let single = Single::default();
        let (old, new) = (Arc::new(1), Arc::new(2));
        single.opened(Some(&old));
        single.gone(&old);
        single.opened(Some(&new));
        single.gone(&old);
        assert!(single.get().is_some_and(|open| Arc::ptr_eq(&open, &new)));
    }

    #[test]
    fn what_opens_after_the_end_is_unwanted() {
        let single = Single::default();
        assert!(matches!(single.step(), Step::Open(..)));
        assert!(single.end().is_none());
        assert!(!single.opened(Some(&Arc::new(1))));
        assert!(matches!(single.step(), Step::Ended));
    }
}
