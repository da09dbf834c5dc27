//! What a session promises, without a socket.

use super::{table::*, *};
use crate::{relay::Relay, seal::KeyRing};

fn principal(name: &str) -> Arc<Identity> {
    Arc::new(Identity { principal: name.into(), ..Identity::clone(&Identity::anonymous()) })
}

fn sessions(node: &str) -> Sessions {
    Sessions::new(Relay::new(node.into(), Arc::new(arc_swap::ArcSwap::from_pointee(KeyRing::ephemeral()))))
}

fn opened(sessions: &Sessions, keys: &KeyRing) -> (String, Arc<Session>) {
    let object = Bytes::from_static(br#"{"name":"c","version":"1"}"#);
    sessions
        .open(
            keys,
            &"default".parse().unwrap(),
            &principal("p"),
            ProtocolVersion::V2025_11_25,
            object.clone(),
            object,
        )
        .unwrap()
}

#[test]
fn any_node_with_the_keys_takes_a_session_up() {
    let keys = KeyRing::ephemeral();
    let (token, session) = opened(&sessions("a"), &keys);
    let other = sessions("b");
    let taken = other.find(&keys, &session.gateway, &principal("p"), &token).unwrap();
    assert_eq!((&taken.id, &taken.client().info), (&session.id, &session.client().info));
}

#[test]
fn a_token_is_useless_for_anybody_else() {
    let keys = KeyRing::ephemeral();
    let (sessions, other) = (sessions("a"), sessions("b"));
    let (token, session) = opened(&sessions, &keys);
    let gateway = &session.gateway;
    for sessions in [&sessions, &other] {
        let find = |keys, gateway, who, token| sessions.find(keys, gateway, &principal(who), token).err();
        assert_eq!(find(&keys, gateway, "q", &token), Some(SessionError::Unknown));
        let elsewhere = "g".parse().unwrap();
        assert_eq!(find(&keys, &elsewhere, "p", &token), Some(SessionError::Unknown));
        assert_eq!(find(&keys, gateway, "p", &token[1..]), Some(SessionError::Unknown));
    }
    let foreign = other.find(&KeyRing::ephemeral(), gateway, &principal("p"), &token).err();
    assert_eq!(foreign, Some(SessionError::Unknown));
}

#[test]
fn an_ended_session_stays_ended() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (token, session) = opened(&sessions, &keys);
    sessions.end(&token).unwrap();
    assert!(session.ended.is_cancelled());
    assert!(sessions.find(&keys, &session.gateway, &principal("p"), &token).is_err());
}

#[test]
fn what_a_client_says_of_itself_must_fit_into_the_token() {
    let sessions = sessions("a");
    let large = Bytes::from(format!("{{\"name\":\"{}\"}}", "x".repeat(TOKEN_BYTES_MAX)));
    let opened = sessions.open(
        &KeyRing::ephemeral(),
        &"default".parse().unwrap(),
        &principal("p"),
        ProtocolVersion::V2025_11_25,
        large,
        Bytes::from_static(b"{}"),
    );
    assert_eq!(opened.err(), Some(SessionError::TooLarge));
}

#[test]
fn an_id_in_flight_is_not_taken_twice() {
    let (_, session) = opened(&sessions("a"), &KeyRing::ephemeral());
    let id = RawId::number(1);
    let (running, cancelled) = session.begin(&id).unwrap();
    assert!(session.begin(&id).is_none());
    session.cancel(&id);
    assert!(cancelled.handle().is_aborted());
    drop(running);
    assert!(session.begin(&id).is_some());
}

#[test]
fn a_session_that_ends_ends_its_calls_and_those_that_begin_too_late() {
    let (_, session) = opened(&sessions("a"), &KeyRing::ephemeral());
    let (_early, early) = session.begin(&RawId::number(1)).unwrap();
    assert!(!early.handle().is_aborted());
    session.end();
    let (_late, late) = session.begin(&RawId::number(2)).unwrap();
    assert!(early.handle().is_aborted() && late.handle().is_aborted());
}

#[tokio::test]
async fn a_reply_reaches_the_question_once() {
    let (_, session) = opened(&sessions("a"), &KeyRing::ephemeral());
    let (id, answer) = session.ask().unwrap();
    assert!(session.reply(&id, Ok(Bytes::from_static(b"{}"))));
    assert!(!session.reply(&id, Ok(Bytes::from_static(b"{}"))));
    assert_eq!(answer.await.unwrap(), Ok(Bytes::from_static(b"{}")));
}

#[tokio::test(start_paused = true)]
async fn an_idle_record_goes_and_its_token_starts_over_unless_a_backend_held_state() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (idle, session) = opened(&sessions, &keys);
    let (used, other) = opened(&sessions, &keys);
    assert!(other.mark_upstream());
    tokio::time::advance(SESSION_IDLE_MAX).await;
    assert_eq!(sessions.sweep(Instant::now()).len(), 2);
    assert!(sessions.find(&keys, &session.gateway, &principal("p"), &idle).is_ok());
    assert!(sessions.find(&keys, &session.gateway, &principal("p"), &used).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_backend_has_lost_is_unknown_and_goes_with_the_next_sweep() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (token, session) = opened(&sessions, &keys);
    assert!(session.mark_upstream());
    session.end();
    let find = || sessions.find(&keys, &session.gateway, &principal("p"), &token).err();
    assert_eq!(find(), Some(SessionError::Unknown));
    assert_eq!(sessions.sweep(Instant::now()).len(), 1);
    assert_eq!(find(), Some(SessionError::Unknown));
    assert_eq!(sessions.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_many_sessions_are_the_idle_make_room_sooner() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (few, _) = opened(&sessions, &keys);
    tokio::time::advance(SESSION_IDLE_CROWDED).await;
    assert_eq!(sessions.sweep(Instant::now()).len(), 0);
    let fresh: Vec<_> = (0..SESSIONS_CROWDED).map(|_| opened(&sessions, &keys)).collect();
    assert_eq!(sessions.sweep(Instant::now()).len(), 1);
    assert!(!sessions.by_token.contains_key(few.as_str()));
    assert_eq!(sessions.len(), fresh.len());
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_ends_with_its_token() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (_, session) = opened(&sessions, &keys);
    let _running = session.begin(&RawId::number(1)).unwrap();
    tokio::time::advance(SESSION_AGE_MAX - Duration::from_secs(1)).await;
    assert!(sessions.sweep(Instant::now()).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(sessions.sweep(Instant::now()).len(), 1);
    assert!(session.ended.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_on_its_way_can_be_had_again_for_a_while() {
    let (_, session) = opened(&sessions("a"), &KeyRing::ephemeral());
    let stream = session.open_stream();
    stream.push(b"answer").await;
    stream.finish();
    let event = stream.attach(None).next().await.unwrap();
    let id = std::str::from_utf8(&event).unwrap().lines().find_map(|l| l.strip_prefix("id: ")).unwrap();
    session.open_stream();
    assert!(session.resume(id).is_some(), "another stream does not take it away");
    tokio::time::advance(crate::downstream::stream::RESUMABLE_FOR).await;
    session.open_stream();
    assert!(session.resume(id).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_clients_that_come_back_is_bounded() {
    let (_, session) = opened(&sessions("a"), &KeyRing::ephemeral());
    for _ in 0..10 {
        let stream = session.open_stream();
        stream.push(&vec![b'x'; SESSION_KEPT_BYTES_MAX / 4]).await;
        stream.finish();
        stream.attach(None).next().await.unwrap();
    }
    session.open_stream();
    assert!(
        session.live().streams.lock().len() <= 5,
        "three that are done, a new one, and the last before it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_fetches_is_not_kept_for_the_life_of_the_session() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    let (_, session) = opened(&sessions, &keys);
    for _ in 0..10 {
        let stream = session.open_stream();
        stream.push(&vec![b'x'; SESSION_KEPT_BYTES_MAX / 4]).await;
        stream.finish();
    }
    sessions.sweep(Instant::now());
    assert!(session.live().streams.lock().len() <= 4, "bounded although nobody has read them");
    tokio::time::advance(crate::downstream::stream::RESUMABLE_FOR).await;
    assert!(sessions.sweep(Instant::now()).is_empty());
    assert!(session.live().streams.lock().is_empty());
}

#[test]
fn a_session_of_another_node_is_away_until_it_was_taken_up() {
    let keys = KeyRing::ephemeral();
    let (first, second) = (sessions("a"), sessions("b"));
    let (token, session) = opened(&first, &keys);
    let place = |at: &Sessions| at.place(&keys, &session.gateway, &principal("p"), &token).unwrap();
    assert_eq!(place(&first), Place::Here { busy: false });
    let Place::Away { id, opener, good_for } = place(&second) else { panic!("it is not there") };
    assert_eq!((&id, opener.as_str()), (&session.id, "a"));
    assert!(good_for <= SESSION_AGE_MAX);
    second.find(&keys, &session.gateway, &principal("p"), &token).unwrap();
    assert_eq!(place(&second), Place::Here { busy: false });
    assert!(second.place(&keys, &session.gateway, &principal("q"), "1.x").is_err());
}

#[test]
fn who_lost_a_session_to_another_node_sends_its_requests_there() {
    let keys = KeyRing::ephemeral();
    let relay = Relay::new("a".into(), Arc::new(arc_swap::ArcSwap::from_pointee(KeyRing::ephemeral())));
    let sessions = Sessions::new(relay.clone());
    let (token, session) = opened(&sessions, &keys);
    relay.set_hint(&session.id, &"b".into());
    sessions.displace(&session.id);
    assert!(session.ended.is_cancelled() && !sessions.has(&session.id, false));
    let place = sessions.place(&keys, &session.gateway, &principal("p"), &token).unwrap();
    assert!(matches!(place, Place::Away { .. }));
}

#[tokio::test]
async fn an_event_id_is_worth_nothing_in_another_session_or_at_another_owner() {
    let keys = KeyRing::ephemeral();
    let first = sessions("a");
    let (token, session) = opened(&first, &keys);
    let (_, other) = opened(&first, &keys);
    let stream = session.open_stream();
    other.open_stream();
    stream.push(b"answer").await;
    let event = stream.attach(None).next().await.unwrap();
    let id = std::str::from_utf8(&event).unwrap().lines().find_map(|l| l.strip_prefix("id: ")).unwrap();
    assert!(session.resume(id).is_some() && other.resume(id).is_none());
    let next = sessions("b").find(&keys, &session.gateway, &principal("p"), &token).unwrap();
    next.open_stream();
    assert!(next.resume(id).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_principal_cannot_take_the_room_of_all() {
    let keys = KeyRing::ephemeral();
    let sessions = sessions("a");
    for _ in 0..SESSIONS_PER_PRINCIPAL_MAX {
        opened(&sessions, &keys);
    }
    let object = || Bytes::from_static(b"{}");
    let gateway = "default".parse().unwrap();
    let open = |who: &str| {
        let version = ProtocolVersion::V2025_11_25;
        sessions.open(&keys, &gateway, &principal(who), version, object(), object()).map(|_| ())
    };
    assert_eq!(open("p").err(), Some(SessionError::Full), "its sessions are all in use");
    assert!(open("q").is_ok());
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(open("p").is_ok(), "those that were idle longest go");
    assert!(sessions.len() < SESSIONS_PER_PRINCIPAL_MAX);
    assert!(!sessions.sweep(Instant::now()).is_empty(), "what backends hold of them is closed");
}
