//! The control plane dies again and again while it is written to: what it has
//! acknowledged is there when it comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use mt_proto::pb::control::{ApplyRequest, ListRequest, config_service_client::ConfigServiceClient};
use mt_proto::pb::resource::{
    Backend, HttpTransport, Metadata, Resource, backend::Transport, resource::Spec,
};
use rand::RngExt as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::ControlPlane;

const KILLS: usize = 200;
const WRITERS: usize = 3;
/// Each writer writes these in turn, so that the store stays small.
const NAMES_PER_WRITER: u64 = 5;
/// The longest life after the first acknowledgment.
const LIFE_MS_MAX: u64 = 60;

/// What one writer knows of one resource.
#[derive(Clone, Copy, Default)]
struct Written {
    /// The newest that was acknowledged.
    acked: u64,
    /// The newest that was sent: it may have been committed without a word.
    sent: u64,
}

type Ledger = BTreeMap<String, Written>;

/// A backend whose description is a number.
fn resource(name: &str, number: u64) -> Resource {
    let http = HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..HttpTransport::default() };
    let backend = Backend {
        description: number.to_string(),
        transport: Some(Transport::Http(http)),
        ..Backend::default()
    };
    Resource {
        metadata: Some(Metadata { name: name.to_owned(), ..Metadata::default() }),
        spec: Some(Spec::Backend(backend)),
    }
}

/// Writes until the control plane dies; gives what it knows and the newest
/// generation that it was told.
async fn write(address: String, writer: usize, mut number: u64, acks: mpsc::Sender<()>) -> (Ledger, u64) {
    let (mut ledger, mut newest) = (Ledger::new(), 0);
    let Ok(mut config) = ConfigServiceClient::connect(format!("http://{address}")).await else {
        return (ledger, newest);
    };
    loop {
        number += 1;
        let name = format!("w{writer}-{}", number % NAMES_PER_WRITER);
        let request = ApplyRequest { resources: vec![resource(&name, number)], ..ApplyRequest::default() };
        let written = ledger.entry(name).or_default();
        written.sent = number;
        match config.apply(request).await {
            Ok(answer) => {
                written.acked = number;
                newest = answer.into_inner().generation;
                _ = acks.try_send(());
            }
            Err(status) => {
                let gone = [
                    tonic::Code::Unavailable,
                    tonic::Code::Unknown,
                    tonic::Code::Cancelled,
                    tonic::Code::Internal,
                ];
                assert!(gone.contains(&status.code()), "{status}");
                return (ledger, newest);
            }
        }
    }
}

/// Compares what is stored with what was acknowledged and sent.
async fn check(control: &ControlPlane, ledger: &Ledger, newest: u64) {
    let request = ListRequest { page_size: 1000, ..ListRequest::default() };
    let listed = control.config().await.list(request).await.unwrap().into_inner();
    assert!(
        listed.generation >= newest,
        "generation {newest} was acknowledged, {} is there",
        listed.generation
    );
    let stored: BTreeMap<String, u64> = listed
        .resources
        .into_iter()
        .map(|stored| {
            let resource = stored.resource.unwrap();
            let Some(Spec::Backend(backend)) = resource.spec else { panic!("only backends were written") };
            (resource.metadata.unwrap().name, backend.description.parse().unwrap())
        })
        .collect();
    for (name, written) in ledger {
        let number = stored.get(name).copied().unwrap_or(0);
        assert!(
            (written.acked..=written.sent).contains(&number),
            "{name}: {} was acknowledged, {} sent, {number} is there",
            written.acked,
            written.sent
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    let folder = TempDir::new().unwrap();
    let mut control = ControlPlane::start(folder.path()).await;
    let (mut ledger, mut newest, mut number) = (Ledger::new(), 0, 0);
    for _ in 0..KILLS {
        let (acks, mut acked) = mpsc::channel(1);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(control.grpc.clone(), writer, number, acks.clone()));
        }
        drop(acks);
        acked.recv().await.expect("something is acknowledged before the kill");
        let life = Duration::from_millis(rand::rng().random_range(0..LIFE_MS_MAX));
        tokio::time::sleep(life).await;
        control.process.kill().await;
        while let Some(written) = writers.join_next().await {
            let (written, generation) = written.unwrap();
            newest = newest.max(generation);
            for (name, written) in written {
                number = number.max(written.sent);
                let known = ledger.entry(name).or_default();
                known.acked = known.acked.max(written.acked);
                known.sent = known.sent.max(written.sent);
            }
        }
        control = ControlPlane::start(folder.path()).await;
        check(&control, &ledger, newest).await;
    }
    assert!(newest > KILLS as u64, "only {newest} generations were acknowledged");
}
