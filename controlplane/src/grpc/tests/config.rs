//! ConfigService, reflection and health, as a client sees them.

use std::collections::BTreeMap;

use mt_proto::pb::control::{
    self, ApplyRequest, DeleteRequest, DiffRequest, GetRequest, HistoryRequest, ListRequest, ResourceRef,
    UndoRequest, WatchRequest,
};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;

fn reference(kind: control::Kind, name: &str) -> ResourceRef {
    ResourceRef { kind: kind.into(), name: name.into() }
}

#[tokio::test]
async fn a_change_is_read_back_listed_compared_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut config = plane.config();
    let first = plane.apply(&[backend("time", 1), gateway("default", &["time"])]).await.unwrap();
    assert_eq!((first.generation, first.changes.len()), (1, 2));
    let request = ApplyRequest {
        resources: vec![backend("time", 2)],
        expected_generation: 1,
        author: "ann".into(),
        message: "move it".into(),
        ..Default::default()
    };
    let second = config.apply(request).await.unwrap().into_inner();
    assert_eq!(second.changes[0].before, Some(backend("time", 1)));
    assert_eq!(second.changes[0].after, Some(backend("time", 2)));

    let get = GetRequest { r#ref: Some(reference(control::Kind::Backend, "time")), generation: 0 };
    let now = config.get(get.clone()).await.unwrap().into_inner().resource.unwrap();
    assert_eq!((now.generation, now.etag.len(), now.resource), (2, 64, Some(backend("time", 2))));
    let then = config.get(GetRequest { generation: 1, ..get }).await.unwrap().into_inner();
    assert_eq!(then.resource.unwrap().resource, Some(backend("time", 1)));

    let diff = config.diff(DiffRequest { from_generation: 1, to_generation: 0 }).await.unwrap().into_inner();
    assert_eq!(diff.changes, second.changes);
    let page = HistoryRequest { page_size: 1, page_token: String::new() };
    let history = config.history(page).await.unwrap().into_inner();
    assert_eq!(history.generations.len(), 1);
    let newest = &history.generations[0];
    assert_eq!((newest.number, newest.author.as_str(), newest.message.as_str()), (2, "ann", "move it"));
    assert_eq!(newest.changed, [reference(control::Kind::Backend, "time")]);
    let rest = HistoryRequest { page_size: 1, page_token: history.next_page_token };
    let rest = config.history(rest).await.unwrap().into_inner();
    assert_eq!((rest.generations[0].number, rest.next_page_token.as_str()), (1, ""));

    let undone = config.undo(UndoRequest::default()).await.unwrap().into_inner();
    assert_eq!((undone.generation, undone.changes[0].after.clone()), (3, Some(backend("time", 1))));
    let refused = config.undo(UndoRequest { generation: 2, ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let details = refused.get_error_details();
    assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "backend/time");
    assert_eq!(details.error_info().unwrap().reason, "TOUCHED_LATER");
    plane.stop().await;
}

#[tokio::test]
async fn a_set_that_does_not_compile_is_refused_with_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let refused = plane.apply(&[backend("time", 1), gateway("default", &["tiem"])]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("magictunnel", "INVALID_CONFIGURATION"));
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "gateway/default:spec.members[0].backend");
    assert!(violation.description.contains("tiem"), "{}", violation.description);
    assert_eq!(plane.config().list(ListRequest::default()).await.unwrap().into_inner().generation, 0);

    plane.apply(&[backend("time", 1), gateway("default", &["time"])]).await.unwrap();
    let request =
        DeleteRequest { refs: vec![reference(control::Kind::Backend, "time")], ..Default::default() };
    let refused = plane.config().delete(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "the gateway still refers to it");
    plane.stop().await;
}

#[tokio::test]
async fn a_thousand_problems_still_reach_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let bad: Vec<Resource> = (0..1000).map(|index| gateway(&format!("g{index}"), &["missing"])).collect();
    let refused = plane.apply(&bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    assert!(details.bad_request().unwrap().field_violations.len() >= 20);
    let problems = &details.error_info().unwrap().metadata["problems"];
    assert!(problems.parse::<usize>().unwrap() >= 1000, "{problems}");
    plane.stop().await;
}

#[tokio::test]
async fn errors_have_the_codes_that_clients_tell_apart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut config = plane.config();
    plane.apply(&[backend("a", 1)]).await.unwrap();
    let moved =
        ApplyRequest { resources: vec![backend("a", 2)], expected_generation: 9, ..Default::default() };
    let moved = config.apply(moved).await.unwrap_err();
    assert_eq!(moved.code(), Code::Aborted);
    assert_eq!(moved.get_error_details().error_info().unwrap().metadata["head"], "1");
    let get = |kind, name: &str| GetRequest { r#ref: Some(reference(kind, name)), generation: 0 };
    let missing = config.get(get(control::Kind::Backend, "b")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let odd = config.get(get(control::Kind::Unspecified, "b")).await.unwrap_err();
    assert_eq!(odd.code(), Code::InvalidArgument);
    let none = config.get(GetRequest::default()).await.unwrap_err();
    assert_eq!(none.get_error_details().bad_request().unwrap().field_violations[0].field, "ref");
    let future = config.list(ListRequest { generation: 7, ..Default::default() }).await.unwrap_err();
    assert_eq!(future.code(), Code::NotFound);
    let token = config.list(ListRequest { page_token: "zz".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(token.code(), Code::InvalidArgument);
    let watch = config.watch(WatchRequest { after_generation: 7, kind: 0 }).await.unwrap_err();
    assert_eq!(watch.code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn pages_of_a_list_stay_at_the_generation_they_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut config = plane.config();
    plane.apply(&[backend("a", 1), backend("b", 1), backend("c", 1)]).await.unwrap();
    let first = ListRequest { page_size: 2, kind: control::Kind::Backend.into(), ..Default::default() };
    let page = config.list(first.clone()).await.unwrap().into_inner();
    assert_eq!(page.resources.len(), 2);
    let gone = DeleteRequest { refs: vec![reference(control::Kind::Backend, "c")], ..Default::default() };
    config.delete(gone).await.unwrap();
    let page = ListRequest { page_token: page.next_page_token, ..first };
    let page = config.list(page).await.unwrap().into_inner();
    assert_eq!((page.resources.len(), page.generation, page.next_page_token.as_str()), (1, 1, ""));
    assert_eq!(page.resources[0].resource, Some(backend("c", 1)));
    plane.stop().await;
}

#[tokio::test]
async fn pruning_and_dry_runs_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let labelled = |name: &str| {
        let mut resource = backend(name, 1);
        resource.metadata.as_mut().unwrap().labels = BTreeMap::from([("from".into(), "dir".into())]);
        resource
    };
    plane.apply(&[labelled("a"), labelled("b"), backend("c", 1)]).await.unwrap();
    let request = ApplyRequest {
        resources: vec![labelled("a")],
        prune_labels: BTreeMap::from([("from".into(), "dir".into())]),
        dry_run: true,
        ..Default::default()
    };
    let dry = plane.config().apply(request.clone()).await.unwrap().into_inner();
    assert_eq!((dry.generation, dry.changes.len()), (1, 1));
    assert_eq!(dry.changes[0].r#ref, Some(reference(control::Kind::Backend, "b")));
    let wet = plane.config().apply(ApplyRequest { dry_run: false, ..request }).await.unwrap().into_inner();
    assert_eq!((wet.generation, &wet.changes), (2, &dry.changes));
    plane.stop().await;
}

#[tokio::test]
async fn a_watch_begins_with_a_bookmark_catches_up_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    for port in 1..=3 {
        plane.apply(&[backend("a", port)]).await.unwrap();
    }
    let watch = WatchRequest { after_generation: 1, kind: 0 };
    let mut resumed = plane.config().watch(watch).await.unwrap().into_inner();
    let mut seen = vec![];
    for _ in 0..4 {
        let next = resumed.next().await.unwrap().unwrap();
        seen.push((next.generation, next.changes.len()));
    }
    assert_eq!(seen, [(1, 0), (2, 1), (3, 1), (3, 0)]);

    let secrets = WatchRequest { after_generation: 0, kind: control::Kind::Gateway.into() };
    let mut gateways = plane.config().watch(secrets).await.unwrap().into_inner();
    assert_eq!(gateways.next().await.unwrap().unwrap().generation, 3);
    plane.apply(&[backend("a", 4)]).await.unwrap();
    plane.apply(&[gateway("default", &["a"])]).await.unwrap();
    let next = resumed.next().await.unwrap().unwrap();
    assert_eq!((next.generation, next.changes[0].after.clone()), (4, Some(backend("a", 4))));
    let next = gateways.next().await.unwrap().unwrap();
    assert_eq!((next.generation, next.changes.len()), (5, 1), "generation 4 had no gateway");

    plane.shutdown.cancel();
    assert_eq!(resumed.next().await.unwrap().unwrap().generation, 5);
    assert_eq!(resumed.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    drop((resumed, gateways));
    plane.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    plane.apply(&[backend("a", 1)]).await.unwrap();
    let keys = std::fs::read(dir.path().join("key-ring")).unwrap();
    plane.stop().await;
    let plane = Plane::start(dir.path()).await;
    let list = plane.config().list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.generation, list.resources[0].resource.clone()), (1, Some(backend("a", 1))));
    assert_eq!(std::fs::read(dir.path().join("key-ring")).unwrap(), keys);
    plane.stop().await;
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let options = Options {
        data_dir: dir.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        insecure: false,
        salvage_store: false,
        metrics: None,
    };
    let second = crate::run(options, CancellationToken::new(), oneshot::channel().0).await;
    assert!(matches!(second, Err(crate::Error::Store(crate::store::Error::Held { .. }))), "{second:?}");
    plane.stop().await;
}

#[tokio::test]
async fn reflection_of_both_versions_lists_every_service_and_health_serves_them() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb;

    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let request = pb::v1::ServerReflectionRequest {
        message_request: Some(pb::v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut v1 = pb::v1::server_reflection_client::ServerReflectionClient::new(plane.channel.clone());
    let mut answers = v1.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let pb::v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in crate::grpc::SERVICES {
        assert!(names.contains(&service), "{service} is not in {names:?}");
        let mut health = HealthClient::new(plane.channel.clone());
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    }

    let request = pb::v1alpha::ServerReflectionRequest {
        message_request: Some(pb::v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "magictunnel.control.v1.ConfigService".into(),
        )),
        ..Default::default()
    };
    let mut alpha = pb::v1alpha::server_reflection_client::ServerReflectionClient::new(plane.channel.clone());
    let mut answers = alpha.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let file = pb::v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(
        matches!(answer, _ if std::mem::discriminant(&answer) == std::mem::discriminant(&file(Default::default())))
    );
    drop(answers);
    plane.stop().await;
}

#[tokio::test]
async fn probes_say_that_it_lives_and_is_ready() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    for (path, status) in [("/livez", "200"), ("/readyz", "200"), ("/metrics", "404")] {
        let mut socket = tokio::net::TcpStream::connect(plane.bound.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    plane.stop().await;
}
