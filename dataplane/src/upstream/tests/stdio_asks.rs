//! Processes that may ask their client: whose question it is must never be in doubt.

use super::{stdio::legacy_server, *};

const ASKING: &str = r#"{"elicitation":{}}"#;

fn asking_client(session: &str) -> Arc<Client> {
    client(Scope::Session(session.into()), LATEST_LEGACY, ASKING, None)
}

/// Asks, and answers the call with the reply. The reply has our id 0.
fn curious() -> String {
    legacy_server(
        r#"*'"name":"ask'*) call=$id; printf '{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"message":"%s"}}\n' "$call";;
    *'"id":0,"result"'*|*'"id":0,"error"'*) id=$call; answer "{\"told\":$(printf %s "$line" | tr -d '\n')}";;
    *'"name":"stuck"'*) call=$id;;
    *'"method":"notifications/cancelled"'*) printf '{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"message":"late"}}\n';;"#,
    )
}

#[tokio::test]
async fn calls_that_may_be_asked_run_one_at_a_time_and_get_their_own_questions() {
    let upstream = upstream(script(&curious()));
    let (first, mut first_door) = begin(&upstream, tool(&asking_client("a"), "1", "ask-a"));
    let ToClient::Ask(first_ask) = next(&mut first_door).await else { panic!("a question") };
    let (second, mut second_door) = begin(&upstream, tool(&asking_client("b"), "1", "ask-b"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(second_door.try_recv().is_err(), "the second waits for the first");
    first_ask.replies.send(vec![Ok(Bytes::from_static(br#"{"who":"a"}"#))]).unwrap();
    let answer = first.await.unwrap().unwrap();
    assert_eq!(answer, result(r#"{"told":{"jsonrpc":"2.0","id":0,"result":{"who":"a"}}}"#));
    let ToClient::Ask(second_ask) = next(&mut second_door).await else { panic!("a question") };
    second_ask.replies.send(vec![Err(Bytes::from_static(br#"{"code":-1,"message":"no"}"#))]).unwrap();
    let answer = second.await.unwrap().unwrap();
    assert_eq!(answer, result(r#"{"told":{"jsonrpc":"2.0","id":0,"error":{"code":-1,"message":"no"}}}"#));
}

#[tokio::test]
async fn what_a_cancelled_call_still_asks_does_not_reach_the_next_caller() {
    let upstream = upstream(script(&curious()));
    let (stuck, _door) = begin(&upstream, tool(&asking_client("a"), "1", "stuck"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    stuck.abort();
    let (second, mut second_door) = begin(&upstream, tool(&asking_client("b"), "1", "plain"));
    second.await.unwrap().unwrap();
    assert!(second_door.recv().await.is_none(), "the question of another's call");
}

#[tokio::test]
async fn what_one_client_subscribed_to_is_not_told_to_the_next_caller() {
    let telling = legacy_server(
        r#"*'"name":"t'*)
        for method in resources/updated message; do
            printf '{"jsonrpc":"2.0","method":"notifications/%s","params":{"uri":"a:b"}}\n' "$method"
        done
        answer '{}';;"#,
    );
    let upstream = upstream(script(&telling));
    let (running, mut door) = begin(&upstream, tool(&asking_client("b"), "1", "t"));
    assert!(next_told(&mut door).await.contains("notifications/message"));
    assert_eq!(running.await.unwrap().unwrap(), result("{}"));
}

#[tokio::test]
async fn the_line_for_an_exclusive_process_is_bounded() {
    let upstream = upstream(script(&curious()));
    let (running, _door) = begin(&upstream, tool(&asking_client("a"), "0", "stuck"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut waiting = Vec::new();
    for id in 1..=super::super::pipe::WAITING_CALLS_MAX {
        waiting.push(begin(&upstream, tool(&asking_client("b"), &id.to_string(), "plain")));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiting.iter().all(|(call, _)| !call.is_finished()));
    let error = run(&upstream, &tool(&asking_client("c"), "1", "plain")).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
    running.abort();
}

#[tokio::test]
async fn a_shared_process_that_asks_without_leave_is_refused() {
    let upstream = upstream(script(&curious()));
    let answer = run(&upstream, &tool(&legacy_client("a"), "1", "ask")).await.unwrap();
    let Answer::Result(text) = answer else { panic!() };
    assert!(String::from_utf8_lossy(&text).contains("-32601"), "{text:?}");
}

#[tokio::test]
async fn a_clients_own_process_speaks_to_it_outside_of_calls_too() {
    let mut config = script(&legacy_server(
        r#"*'roots/list_changed'*) printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"seen"}}\n';;"#,
    ));
    stdio(&mut config).sharing = Sharing::PerSession;
    let upstream = upstream(config);
    let (events, mut door) = Caller::channel();
    let client =
        client(Scope::Session("a".into()), LATEST_LEGACY, r#"{"roots":{"listChanged":true}}"#, Some(events));
    let changed = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    upstream.notify(&client, changed.clone()).await;
    run(&upstream, &tool(&client, "1", "t")).await.unwrap();
    upstream.notify(&client, changed).await;
    assert!(next_told(&mut door).await.contains("seen"));
}
