//! What a modern call says while it runs, as the chunks of a response.
//!
//! Whatever is there when a chunk is asked for goes into it: a backend that says
//! much in little time costs its client a few reads and not one for each message.
//! A chunk is asked for when the socket has taken the one before, so a client that
//! reads slowly holds the call back.

use bytes::Bytes;
use futures_util::stream;

use super::{
    body::Body, framing::Framing, pieces::Pieces, running::Running, silence::Silence, step::Step,
    stream::KEEP_ALIVE_EVERY,
};

/// A chunk that is as long takes no further message.
pub const CHUNK_BYTES_MAX: usize = 16 << 10;

/// What a call says from its first message on. Dropping it cancels the call.
pub fn body(running: Running, first: Bytes, framing: Framing) -> Body {
    let silence = Silence::new(KEEP_ALIVE_EVERY);
    let saying = Saying { running, first: Some(first), framing, silence };
    Body::stream(stream::unfold(saying, |mut saying| async move { Some((saying.next().await?, saying)) }))
}

struct Saying {
    running: Running,
    first: Option<Bytes>,
    framing: Framing,
    silence: Silence,
}

impl Saying {
    async fn next(&mut self) -> Option<Pieces> {
        let mut step = match self.first.take() {
            Some(first) => Step::Said(first),
            None => match self.silence.around(self.running.next()).await {
                Some(step) => step?,
                None => return Some(self.framing.keep_alive().into()),
            },
        };
        self.silence.break_now();
        let mut chunk = Vec::new();
        loop {
            match step {
                Step::Said(message) => self.framing.write(&message, &mut chunk),
                Step::Ended { message, .. } => return Some(message.framed(self.framing, chunk)),
            }
            if chunk.len() >= CHUNK_BYTES_MAX {
                break;
            }
            match self.running.ready() {
                Some(next) => step = next,
                None => break,
            }
        }
        Some(Bytes::from(chunk).into())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::{sync::oneshot, time::Instant};
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        downstream::door::{DoorOptions, Doors},
        gateway::{
            call::{Answer, Caller},
            park::Work,
        },
        mcp::RawId,
        node::Node,
    };

    /// A call that says so much at once, waits, and answers; and what ends the wait.
    async fn saying(count: usize) -> (Body, oneshot::Sender<()>) {
        let over = CancellationToken::new();
        let doors = Doors::new(Node::new(TaskTracker::new(), over.clone(), over), DoorOptions::default());
        let (caller, from_call) = Caller::channel();
        let (go, gone) = oneshot::channel();
        let call = Box::pin(async move {
            for number in 0..count {
                caller.notify(number.to_string().into()).await;
            }
            _ = gone.await;
            Ok(Answer::Result(Bytes::from_static(b"{}")))
        });
        let mut running = Running::of(&doors, RawId::number(7), Work { call, from_call });
        let Some(Step::Said(first)) = running.next().await else { panic!("it says something first") };
        (body(running, first, Framing::Lines), go)
    }

    async fn next(body: &mut Body) -> Option<String> {
        let data = body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.joined().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_one_chunk_and_the_answer_comes_last() {
        let (mut body, go) = saying(3).await;
        assert_eq!(next(&mut body).await.unwrap(), "0\n1\n2\n");
        let began = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), "\n", "it is silent for long");
        assert_eq!(began.elapsed(), KEEP_ALIVE_EVERY);
        go.send(()).unwrap();
        let answer = next(&mut body).await.unwrap();
        assert!(answer.contains("\"id\":7") && answer.ends_with("}\n"), "{answer}");
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_is_said_arrives_in_order_however_much_it_is() {
        let (mut body, go) = saying(1_000).await;
        go.send(()).unwrap();
        let mut lines = Vec::new();
        while let Some(chunk) = next(&mut body).await {
            assert!(chunk.len() < 2 * CHUNK_BYTES_MAX);
            lines.extend(chunk.lines().map(str::to_owned));
        }
        let said: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert_eq!(lines[..1_000], said);
        assert_eq!(lines.len(), 1_001);
    }
}
