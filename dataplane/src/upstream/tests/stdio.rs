//! Backends that are real child processes.

use mt_proto::resource::Value as ConfigValue;

use super::*;
use crate::upstream::Eras;

/// Shell that answers as a legacy server does, with more branches for `case`.
pub fn legacy_server(branches: &str) -> String {
    format!(
        r#"while IFS= read -r line; do
  id=${{line#*\"id\":}}; id=${{id%%,*}}
  answer() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$1"; }}
  case $line in
    {branches}
    *'"method":"initialize"'*) answer '{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"sh","version":"1"}}}}';;
    *'"method":"server/discover"'*) printf '{{"jsonrpc":"2.0","id":%s,"error":{{"code":-32601,"message":"Method not found"}}}}\n' "$id";;
    *'"method":"notifications/'*) ;;
    *'"id":'*'"method":'*) answer "{{\"pid\":$$}}";;
  esac
done"#
    )
}

fn pid(answer: &Answer) -> i32 {
    let Answer::Result(result) = answer else { panic!("{answer:?}") };
    let value: Value = serde_json::from_slice(result).unwrap();
    i32::try_from(value["pid"].as_i64().unwrap()).unwrap()
}

async fn until_dead(pid: i32) {
    let dead = async {
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, dead).await.expect("the process is still alive");
}

#[tokio::test]
async fn clients_that_cannot_be_asked_share_a_process_and_get_their_own_answers() {
    let upstream = upstream(script(&legacy_server(
        r#"*'"name":"hold"'*) held=$id;;
    *'"name":"release"'*) answer '{"second":true}'; id=$held; answer '{"first":true}';;"#,
    )));
    let (first, _door) = begin(&upstream, tool(&legacy_client("a"), "1", "hold"));
    let other = legacy_client("b");
    let one = run(&upstream, &tool(&other, "1", "pid")).await.unwrap();
    // The held call is first on the pipe as soon as another has been answered
    // after it; the order of two that begin together is open.
    let second = loop {
        let answer = run(&upstream, &tool(&other, r#""1""#, "release")).await.unwrap();
        if first.is_finished()
            || timeout(Duration::from_millis(100), async {
                while !first.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .is_ok()
        {
            break answer;
        }
    };
    assert_eq!(second, result(r#"{"second":true}"#));
    assert_eq!(first.await.unwrap().unwrap(), result(r#"{"first":true}"#));
    assert_eq!(pid(&one), pid(&run(&upstream, &tool(&legacy_client("c"), "9", "pid")).await.unwrap()));
}

#[tokio::test]
async fn progress_carries_the_clients_token_and_ends_with_the_answer() {
    let upstream = upstream(script(&legacy_server(
        r#"*'"name":"t"'*)
      printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":50}}\n' "$id"
      printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"whose?"}}\n'
      answer '{"done":1}'
      printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":100}}\n' "$id";;"#,
    )));
    let call =
        call(&legacy_client("a"), "5", Method::ToolsCall, r#"{"name":"t","_meta":{"progressToken":"mine"}}"#);
    let (running, mut door) = begin(&upstream, call);
    assert_eq!(
        next_told(&mut door).await,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":50}}"#
    );
    assert_eq!(running.await.unwrap().unwrap(), result(r#"{"done":1}"#));
    assert!(door.recv().await.is_none(), "neither a log message without an owner nor late progress");
}

#[tokio::test]
async fn garbage_between_messages_is_skipped() {
    let upstream = upstream(script(&format!(
        "echo 'Starting server...'; printf '\\033[32mready\\033[0m\\n\\357\\273\\277{{}}\\n[1,2]\\n'; {}",
        legacy_server(r#"*'"name":"t"'*) echo oops; answer '{"ok":1}';;"#)
    )));
    assert_eq!(run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap(), result(r#"{"ok":1}"#));
}

#[tokio::test]
async fn a_crash_fails_its_calls_with_its_last_words_and_the_next_call_has_a_new_process() {
    let mut config = script(&legacy_server(r#"*'"name":"crash"'*) echo "panicked with $KEY" >&2; exit 3;;"#));
    stdio(&mut config).env = vec![("KEY".into(), ConfigValue::Secret("key".parse().unwrap()))];
    let upstream = upstream(config);
    let client = legacy_client("a");
    let before = pid(&run(&upstream, &tool(&client, "1", "pid")).await.unwrap());
    let error = run(&upstream, &tool(&client, "2", "crash")).await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }));
    let text = error.to_string();
    assert!(text.contains("exit code 3") && text.contains("panicked with ***"), "{text}");
    let after = pid(&run(&upstream, &tool(&client, "3", "pid")).await.unwrap());
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_process_that_dies_of_every_call_is_started_more_and_more_slowly() {
    let upstream = upstream(script(&legacy_server(r#"*'"name":"crash"'*) exit 3;;"#)));
    let client = legacy_client("a");
    let began = Instant::now();
    let mut lost = 0;
    while began.elapsed() < Duration::from_secs(3) {
        match run(&upstream, &tool(&client, "1", "crash")).await.unwrap_err() {
            CallError::Lost { .. } => lost += 1,
            CallError::Unreachable { reason, .. } => {
                assert!(reason.contains("started again in"), "{reason}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // 250 ms, 500 ms, 1 s, each at least half; then it is not waited for.
    assert!((2..=5).contains(&lost), "{lost} starts");
}

#[tokio::test]
async fn a_process_that_keeps_dying_is_not_started_for_every_call() {
    let upstream = upstream(script("echo 'no such package' >&2; exit 1"));
    let client = legacy_client("a");
    let mut errors = Vec::new();
    for _ in 0..6 {
        let error = run(&upstream, &tool(&client, "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
        errors.push(error.to_string());
    }
    assert!(errors[0].contains("exit code 1") && errors[0].contains("no such package"), "{}", errors[0]);
    assert!(errors[5].contains("started again in"), "{}", errors[5]);
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_said_at_once() {
    let mut config = script("");
    stdio(&mut config).command = "/nowhere/server".into();
    let error = run(&upstream(config), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }));
    assert!(error.to_string().contains("/nowhere/server"), "{error}");
}

#[tokio::test]
async fn a_process_that_never_answers_is_given_up_with_what_it_said() {
    let mut config = script("echo downloading >&2; sleep 1000");
    stdio(&mut config).start_timeout = Duration::from_millis(300);
    let error = run(&upstream(config), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }));
    assert!(error.to_string().contains("downloading"), "{error}");
    assert!(!error.to_string().contains("not MCP"), "{error}");
}

#[tokio::test]
async fn a_process_that_speaks_something_else_is_given_up_with_that_reason() {
    let mut config = script("echo 'listening on port 8080'; sleep 1000");
    stdio(&mut config).start_timeout = Duration::from_millis(300);
    let error = run(&upstream(config), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(error.to_string().contains("writes to stdout what is not MCP"), "{error}");
}

#[tokio::test]
async fn a_line_without_end_kills_its_process_only() {
    let upstream = upstream(script(&legacy_server(r#"*'"name":"huge"'*) tr '\0' 'x' </dev/zero;;"#)));
    let client = legacy_client("a");
    let before = pid(&run(&upstream, &tool(&client, "1", "pid")).await.unwrap());
    let error = run(&upstream, &tool(&client, "2", "huge")).await.unwrap_err();
    assert!(error.to_string().contains("line that is too long"), "{error}");
    until_dead(before).await;
    run(&upstream, &tool(&client, "3", "pid")).await.unwrap();
}

#[tokio::test]
async fn a_process_that_does_not_read_fails_fast() {
    let upstream = upstream(script(&legacy_server(r#"*'"name":"deaf"'*) sleep 1000;;"#)));
    let client = legacy_client("a");
    let (deaf, _door) = begin(&upstream, tool(&client, "1", "deaf"));
    let big = format!(r#"{{"name":"t","arguments":{{"text":"{}"}}}}"#, "x".repeat(300_000));
    let mut waiting = Vec::new();
    for id in 0..20 {
        waiting.push(begin(&upstream, call(&client, &id.to_string(), Method::ToolsCall, &big)));
    }
    let refused = timeout(PATIENCE, async {
        loop {
            if let Some(at) = waiting.iter().position(|(running, _)| running.is_finished()) {
                match waiting.swap_remove(at).0.await.unwrap() {
                    // It was sent before the process went deaf.
                    Ok(_) => {}
                    refused => return refused,
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.retain(|(running, _)| !running.is_finished());
    let error = refused.expect("the queue has no end").unwrap_err();
    assert!(error.to_string().contains("does not read its input"), "{error}");
    assert!(waiting.len() <= 5, "{} calls of 300 kB wait", waiting.len());
    deaf.abort();
}

#[tokio::test]
async fn closed_output_is_a_crash() {
    let upstream =
        upstream(script(&legacy_server(r#"*'"name":"t"'*) printf '{"half'; exec >&-; sleep 1000;;"#)));
    let error = run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn processes_are_shared_as_configured_and_end_with_their_owner() {
    let with = |sharing| {
        let mut config = script(&legacy_server(""));
        stdio(&mut config).sharing = sharing;
        upstream(config)
    };
    let (a, b) = (legacy_client("a"), legacy_client("b"));
    let sessions = with(Sharing::PerSession);
    let of_a = pid(&run(&sessions, &tool(&a, "1", "t")).await.unwrap());
    let of_b = pid(&run(&sessions, &tool(&b, "1", "t")).await.unwrap());
    assert_ne!(of_a, of_b);
    assert_eq!(of_a, pid(&run(&sessions, &tool(&a, "2", "t")).await.unwrap()));
    sessions.end_scope(&a.scope).await;
    until_dead(of_a).await;
    assert_eq!(of_b, pid(&run(&sessions, &tool(&b, "2", "t")).await.unwrap()));
    sessions.close(Duration::from_secs(1)).await;
    until_dead(of_b).await;

    let calls = with(Sharing::PerCall);
    let first = pid(&run(&calls, &tool(&a, "1", "t")).await.unwrap());
    let second = pid(&run(&calls, &tool(&a, "2", "t")).await.unwrap());
    assert_ne!(first, second);
    until_dead(first).await;
    until_dead(second).await;

    let principals = with(Sharing::PerPrincipal);
    let one = pid(&run(&principals, &tool(&a, "1", "t")).await.unwrap());
    assert_eq!(one, pid(&run(&principals, &tool(&b, "1", "t")).await.unwrap()));
}

#[tokio::test]
async fn a_shutdown_ends_every_process() {
    let shared = Shared::new(TaskTracker::new(), CancellationToken::new());
    let secrets = Arc::new(|_: &mt_proto::resource::ResourceName| Ok(String::new()));
    let upstream = Upstream::new(Arc::new(script(&legacy_server(""))), secrets, shared.clone());
    let child = pid(&run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap());
    shared.shutdown.cancel();
    shared.tasks.close();
    timeout(PATIENCE, shared.tasks.wait()).await.expect("a task outlives the node");
    until_dead(child).await;
}

/// As servers on the Python SDK 2: the first request decides the era.
const LOCKED: &str = r#"era=
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
  case $line in
    *'"method":"initialize"'*)
      if [ "$era" = modern ]; then say '"error":{"code":-32022,"message":"connection is serving the 2026-07-28 protocol"}'
      else era=legacy; say '"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"locked","version":"1"}}'; fi;;
    *'"method":"notifications/'*) ;;
    *'protocolVersion":"2026-07-28"'*|*'"modern"'*)
      if [ "$era" = legacy ]; then say '"error":{"code":-32600,"message":"connection is serving the legacy protocol"}'
      else era=modern
        case $line in
          *server/discover*) say '"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}';;
          *subscriptions/listen*)
            printf '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s},"notifications":{}}}\n' "$id"
            printf '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}\n' "$id";;
          *) say '"result":{"resultType":"complete","era":"modern"}';;
        esac
      fi;;
    *) if [ "$era" = modern ]; then say '"error":{"code":-32600,"message":"modern"}'; else say '"result":{"era":"legacy"}'; fi;;
  esac
done"#;

const ENVELOPE: &str = r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;

#[tokio::test]
async fn a_server_that_is_locked_by_its_first_request_serves_both_eras() {
    let upstream = upstream(script(LOCKED));
    let facts = upstream.probe().await.unwrap();
    assert!(facts.legacy);
    assert_eq!(facts.modern_versions, ["2026-07-28"]);
    assert_eq!(upstream.eras(), Some(Eras { legacy: true, modern: true }));
    let legacy = run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    assert_eq!(legacy, result(r#"{"era":"legacy"}"#));
    let modern = run(&upstream, &call(&modern_client(), "1", Method::ToolsCall, ENVELOPE)).await.unwrap();
    assert_eq!(modern, result(r#"{"resultType":"complete","era":"modern"}"#));
}

#[tokio::test]
async fn a_modern_client_of_an_unknown_backend_makes_it_known_first() {
    let legacy = upstream(script(&legacy_server("")));
    let error = run(&legacy, &call(&modern_client(), "1", Method::ToolsCall, ENVELOPE)).await.unwrap_err();
    assert!(matches!(error, CallError::EraMismatch { backend_era: "legacy", .. }), "{error}");
    let dual = upstream(script(LOCKED));
    run(&dual, &call(&modern_client(), "1", Method::ToolsCall, ENVELOPE)).await.unwrap();
}

#[tokio::test]
async fn a_subscription_on_a_pipe_has_its_clients_id() {
    let mut config = script(LOCKED);
    config.protocol = Protocol::Modern;
    let upstream = upstream(config);
    let listen = call(&modern_client(), r#""sub-1""#, Method::Listen, ENVELOPE);
    let (running, mut door) = begin(&upstream, listen);
    assert_eq!(
        next_told(&mut door).await,
        r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"sub-1"},"notifications":{}}}"#
    );
    let Answer::Result(last) = running.await.unwrap().unwrap() else { panic!() };
    assert!(String::from_utf8_lossy(&last).contains(r#""io.modelcontextprotocol/subscriptionId":"sub-1""#));
}

#[tokio::test]
async fn a_legacy_server_that_ignores_or_hates_the_question_is_known_as_legacy() {
    for branch in [
        r#"*'"method":"server/discover"'*) ;;"#,
        r#"*'"method":"server/discover"'*) exit 1;;"#,
        r#"*'"method":"server/discover"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"Invalid request parameters"}}\n' "$id";;"#,
    ] {
        let upstream = upstream(script(&legacy_server(branch)));
        let facts = upstream.probe().await.unwrap();
        assert!(facts.legacy && facts.modern_versions.is_empty());
        assert_eq!(facts.server_info, r#"{"name":"sh","version":"1"}"#);
        run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    }
}

#[tokio::test]
async fn the_node_hears_of_changed_lists_from_a_shared_process() {
    let upstream = upstream(script(&legacy_server(
        r#"*'"name":"change"'*) printf '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n'; answer '{}';;"#,
    )));
    let (to_node, mut node) = Caller::channel();
    let lister = client(Scope::Node, LATEST_LEGACY, "{}", Some(to_node));
    run(&upstream, &call(&lister, "1", Method::ToolsList, "{}")).await.unwrap();
    run(&upstream, &tool(&legacy_client("a"), "1", "change")).await.unwrap();
    assert!(next_told(&mut node).await.contains("tools/list_changed"));
}
