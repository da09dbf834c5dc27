//! Bodies of answers: whole, event by event, and streams that say nothing.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::reply::{Report, progress};

/// What is sent.
pub enum Body {
    Full(Option<Bytes>),
    /// Each event in a packet of its own, as a tool that works would send them.
    Events(Box<Events>),
    /// A comment, so that proxies pass the head on, and then nothing.
    Held {
        begun: bool,
    },
}

/// Reports, and the answer after them.
pub struct Events {
    report: Report,
    sent: u32,
    answer: Option<String>,
    /// Whether what was sent before may leave first.
    rested: bool,
}

impl Body {
    pub fn empty() -> Self {
        Self::Full(None)
    }

    pub fn full(text: String) -> Self {
        Self::Full(Some(text.into()))
    }

    pub fn reports(report: Report, answer: String) -> Self {
        Self::Events(Box::new(Events { report, sent: 0, answer: Some(answer), rested: true }))
    }

    pub fn held() -> Self {
        Self::Held { begun: false }
    }
}

impl Events {
    fn next(&mut self) -> Option<String> {
        let data = if self.sent < self.report.events {
            self.sent += 1;
            let message = format!("\"step {} of {}\"", self.sent, self.report.mark);
            progress(&self.report.token, self.sent, &message)
        } else {
            self.answer.take()?
        };
        Some(format!("event: message\ndata: {data}\n\n"))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Full(bytes) => bytes.take(),
            Self::Events(events) => {
                events.rested = !events.rested;
                if events.rested {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                events.next().map(Bytes::from)
            }
            Self::Held { begun: true } => return Poll::Pending,
            Self::Held { begun } => {
                *begun = true;
                Some(Bytes::from_static(b": open\n\n"))
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_report_and_the_answer_is_a_frame_of_its_own() {
        let report = Report { token: "7".into(), mark: "mark-1-2.".into(), events: 3 };
        let mut body = Body::reports(report, "{}".into());
        let mut frames = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            frames.push(frame.into_data().unwrap());
        }
        assert_eq!(frames.len(), 4);
        assert!(frames[2].windows(9).any(|w| w == b"mark-1-2."));
        assert_eq!(&frames[3][..], b"event: message\ndata: {}\n\n");
    }
}
