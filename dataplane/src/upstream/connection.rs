//! The life of a pipe whose other end is elsewhere: what ends it, and how often
//! a silent server is asked whether it is still there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    pipe::{Ended, Pipe},
    pump::idle,
    subscriptions,
};
use crate::mcp::method::Method;

/// How long what a server has said is still read when nothing can be sent to
/// it, and how long a connection may take to close.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// A legacy server with whom nobody has spoken for so long is sent a `ping`.
const PING_AFTER: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pings in a row without an answer after which it is given up.
const PINGS_MISSED_MAX: u32 = 2;

/// The tasks of one connection, besides its supervisor.
pub struct Tasks {
    pub wrote: JoinHandle<()>,
    /// Ends with how the connection has.
    pub read: JoinHandle<String>,
}

/// Sees a connection to its end.
pub async fn supervise(pipe: Arc<Pipe>, tasks: Tasks, idle_max: Duration) {
    let Tasks { mut wrote, mut read } = tasks;
    let (how, wanted) = tokio::select! {
        how = &mut read => (how.ok(), pipe.stop.is_cancelled()),
        _ = &mut wrote => {
            let wanted = pipe.stop.is_cancelled();
            // What the server has said before the end still counts.
            let how = timeout(LAST_WORDS, &mut read).await.ok().and_then(Result::ok);
            (Some(how.unwrap_or_else(|| "nothing can be sent to it".to_owned())), wanted)
        }
        () = pipe.stop.cancelled() => (None, true),
        () = idle(&pipe, idle_max) => (None, true),
    };
    pipe.pending.close();
    pipe.stop.cancel();
    // It says goodbye, as far as its transport has a word for it.
    if !wrote.is_finished() {
        _ = timeout(LAST_WORDS, &mut wrote).await;
    }
    wrote.abort();
    read.abort();
    let how = match pipe.given_up() {
        Some(why) => why.to_owned(),
        None => how.unwrap_or_else(|| "closed by the node".to_owned()),
    };
    pipe.set_ended(Ended { how: how.into(), wanted: wanted && pipe.given_up().is_none() });
}

/// Asks an idle legacy server whether it is still there, until the pipe ends.
/// One that has never answered may not know the question.
pub async fn heartbeat(pipe: Arc<Pipe>) {
    let nothing = Bytes::from_static(b"{}");
    let beat = async {
        let (mut knows, mut missed) = (false, 0);
        loop {
            sleep(PING_AFTER).await;
            subscriptions::sweep(&pipe);
            if pipe.idle_for().is_none_or(|idle| idle < PING_AFTER) {
                missed = 0;
                continue;
            }
            match timeout(PING_TIMEOUT, pipe.ask(&Method::Ping, &nothing)).await {
                Ok(Ok(_)) => (knows, missed) = (true, 0),
                Ok(Err(_)) | Err(_) => missed += 1,
            }
            if knows && missed >= PINGS_MISSED_MAX {
                return pipe.give_up("it does not answer pings");
            }
        }
    };
    _ = pipe.stop.run_until_cancelled(beat).await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        mcp::version::Era,
        upstream::{
            Shared,
            hints::Hints,
            meters::Meters,
            pipe::{CONNECTION, Queued, Terms},
            sharing::Clients,
        },
    };

    fn pipe() -> (Arc<Pipe>, mpsc::Receiver<Queued>) {
        Pipe::new(Terms {
            backend: "silent".parse().unwrap(),
            noun: CONNECTION,
            era: Era::Legacy,
            clients: Clients { sole: false, asks: false, events: None },
            backoff: Arc::default(),
            followers: Arc::default(),
            hints: Arc::new(Hints::default()),
            meters: Arc::new(Meters::new("silent")),
            shared: Shared::new(TaskTracker::new(), CancellationToken::new()),
        })
    }

    /// A server that answers so many pings.
    async fn answer(pipe: Arc<Pipe>, mut queue: mpsc::Receiver<Queued>, mut answers: u32) {
        while let Some(queued) = queue.recv().await {
            let ping: serde_json::Value = serde_json::from_slice(&queued.line).unwrap();
            assert_eq!(ping["method"], "ping");
            if answers > 0 {
                answers -= 1;
                let pong = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, ping["id"]);
                assert!(pipe.take(pong.into()));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_no_longer_answers_is_given_up_and_one_that_never_did_is_not() {
        for (answers, given_up) in [(2, true), (0, false)] {
            let (pipe, queue) = pipe();
            let server = answer(pipe.clone(), queue, answers);
            let hour = Duration::from_secs(3600);
            _ = timeout(hour, async { tokio::join!(heartbeat(pipe.clone()), server) }).await;
            assert_eq!(pipe.is_over(), given_up, "{answers}");
            assert_eq!(pipe.given_up().is_some(), given_up, "{answers}");
        }
    }
}
