use proptest::prelude::*;

use super::*;
use crate::mcp::Method;

fn question() -> Question {
    Question { key: "0".to_owned(), method: Method::Elicit, params: Bytes::from_static(b"{}") }
}

fn answers(keys: &[&str]) -> BTreeMap<String, Bytes> {
    keys.iter().map(|key| ((*key).to_owned(), Bytes::from(format!("{{\"to\":\"{key}\"}}")))).collect()
}

fn reply(key: &str) -> Reply {
    Ok(answers(&[key]).remove(key).unwrap())
}

/// A machine whose questions are with the client.
fn parked(now: Instant, questions: usize) -> Machine {
    let mut machine = Machine::new(now);
    for set in 1..=questions as u64 {
        assert_eq!(machine.asked(now, set, vec![question()]), []);
    }
    assert_eq!(machine.tick(now + WINDOW), [Action::Present { round: 1 }]);
    machine
}

#[tokio::test(start_paused = true)]
async fn questions_of_one_moment_are_put_together() {
    let now = Instant::now();
    let mut machine = Machine::new(now);
    assert_eq!(machine.wake(), None);
    machine.asked(now, 1, vec![question()]);
    assert_eq!(machine.wake(), Some(now + WINDOW));
    machine.asked(now + WINDOW / 2, 2, vec![question()]);
    assert_eq!(machine.tick(now + WINDOW / 2), []);
    assert_eq!(machine.tick(now + WINDOW), [Action::Present { round: 1 }]);
    assert_eq!(machine.questions().map(|q| q.key.as_str()).collect::<Vec<_>>(), ["q1", "q2"]);
    assert!(!machine.has_listener());
}

#[tokio::test(start_paused = true)]
async fn answers_go_to_who_asked_and_the_call_goes_on() {
    let now = Instant::now();
    let mut machine = parked(now, 2);
    assert_eq!(
        machine.retried(now, 1, [1; 32], &answers(&["q2", "q1", "other"])),
        [
            Action::Attach,
            Action::Reply { set: 1, replies: vec![reply("q1")] },
            Action::Reply { set: 2, replies: vec![reply("q2")] },
        ]
    );
    assert!(machine.has_listener());
    assert_eq!(machine.ended(now), [Action::Conclude]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_is_asked_again() {
    let now = Instant::now();
    let mut machine = parked(now, 2);
    assert_eq!(
        machine.retried(now, 1, [1; 32], &answers(&["q2"])),
        [Action::Attach, Action::Reply { set: 2, replies: vec![reply("q2")] }, Action::Present { round: 2 },]
    );
    assert_eq!(machine.questions().map(|q| q.key.as_str()).collect::<Vec<_>>(), ["q1"]);
    // The same again gets the same, and other answers nothing.
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q2"])), [Action::GiveQuestions]);
    assert_eq!(machine.retried(now, 1, [2; 32], &answers(&["q1"])), [Action::Deny(Denial::OtherAnswers)]);
    assert_eq!(
        machine.retried(now, 2, [2; 32], &answers(&["q1"])),
        [Action::Attach, Action::Reply { set: 1, replies: vec![reply("q1")] }]
    );
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q2"])), [Action::Deny(Denial::Spent)]);
    assert_eq!(machine.retried(now, 3, [1; 32], &answers(&[])), [Action::Deny(Denial::Invalid)]);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_answered_whole() {
    let now = Instant::now();
    let mut machine = Machine::new(now);
    machine.asked(now, 1, vec![question(), question()]);
    machine.tick(now + WINDOW);
    assert_eq!(
        machine.retried(now, 1, [1; 32], &answers(&["q2"])),
        [Action::Attach, Action::Present { round: 2 }]
    );
    assert_eq!(
        machine.retried(now, 2, [2; 32], &answers(&["q1"])),
        [Action::Attach, Action::Reply { set: 1, replies: vec![reply("q1"), reply("q2")] }]
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeat_hears_the_same_call_and_its_outcome() {
    let now = Instant::now();
    let mut machine = parked(now, 1);
    machine.retried(now, 1, [1; 32], &answers(&["q1"]));
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q1"])), [Action::Attach]);
    assert_eq!(machine.ended(now), [Action::Conclude]);
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q1"])), [Action::GiveOutcome]);
    assert_eq!(machine.tick(now + OUTCOME_KEPT), [Action::Forget]);
    assert!(machine.is_over());
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_its_client_is_away_waits_for_it() {
    let now = Instant::now();
    let mut machine = parked(now, 1);
    assert_eq!(machine.ended(now), []);
    assert_eq!(machine.tick(now + OUTCOME_KEPT), []);
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&[])), [Action::GiveOutcome]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_comes_costs_nothing_for_ever() {
    let now = Instant::now();
    let mut machine = parked(now, 2);
    let late = now + WINDOW + ROUND_TTL;
    assert_eq!(machine.wake(), Some(late));
    assert_eq!(machine.tick(late), [Action::Refuse { set: 1 }, Action::Refuse { set: 2 }]);
    assert_eq!(machine.retried(late, 1, [1; 32], &answers(&["q1"])), [Action::Deny(Denial::Invalid)]);
    assert_eq!(machine.asked(late, 3, vec![question()]), [Action::Refuse { set: 3 }]);
    assert_eq!(machine.tick(late + REFUSAL_GRACE), [Action::Drop, Action::Forget]);
}

#[tokio::test(start_paused = true)]
async fn who_only_comes_back_does_not_keep_a_call_for_ever() {
    let start = Instant::now();
    let mut machine = parked(start, 1);
    let mut now = start;
    for round in 1..100 {
        now += ROUND_TTL / 2;
        if !machine.tick(now).is_empty() {
            break;
        }
        machine.retried(now, round, [1; 32], &answers(&[]));
    }
    assert!(now <= start + LIFE_MAX + ROUND_TTL / 2, "{:?}", now - start);
    assert_eq!(machine.tick(now + REFUSAL_GRACE), [Action::Drop, Action::Forget]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_should_listen_cancels() {
    let now = Instant::now();
    let mut machine = parked(now, 1);
    assert_eq!(machine.left(now), [], "it was told to come back");
    machine.retried(now, 1, [1; 32], &answers(&["q1"]));
    assert_eq!(machine.left(now), [Action::Drop]);
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q1"])), [Action::GiveOutcome]);
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_is_not_put_to_the_client() {
    let now = Instant::now();
    let mut machine = Machine::new(now);
    machine.asked(now, 1, vec![question()]);
    machine.withdrawn(1);
    assert_eq!((machine.wake(), machine.has_listener()), (None, true));
    let mut machine = parked(now, 1);
    machine.withdrawn(1);
    assert_eq!(machine.retried(now, 1, [1; 32], &answers(&["q1"])), [Action::Attach]);
}

#[derive(Clone, Debug)]
enum Event {
    Ask(usize),
    Withdraw(u64),
    /// A retry of a round that is so far back, with the answers of a pattern.
    Retry(u32, u8),
    Wait(u64),
    Leave,
    End,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4usize).prop_map(Event::Ask),
        1 => (1..20u64).prop_map(Event::Withdraw),
        6 => (0..3u32, any::<u8>()).prop_map(|(back, pattern)| Event::Retry(back, pattern)),
        6 => prop_oneof![Just(20), Just(20), 0..100_000u64, Just(600_000)].prop_map(Event::Wait),
        1 => Just(Event::Leave),
        1 => Just(Event::End),
    ]
}

proptest! {
    /// Whatever happens in whatever order: an answer that was taken reaches who
    /// asked, once and in its place; nobody listens twice to an end; and what is
    /// kept stays within its bounds.
    #[test]
    fn no_order_of_events_loses_or_misplaces_an_answer(events in prop::collection::vec(event(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
        let _guard = runtime.enter();
        let start = Instant::now();
        let (mut now, mut machine) = (start, Machine::new(start));
        // For each open set its keys; for each key the answer that was taken.
        let mut expected: HashMap<u64, Vec<String>> = HashMap::new();
        let mut taken: HashMap<String, Bytes> = HashMap::new();
        let (mut sets, mut keys, mut round, mut listeners) = (0u64, 0usize, 0u32, 1);
        let mut answered: HashMap<u32, Digest> = HashMap::new();
        for (step, event) in events.into_iter().enumerate() {
            let shown: Vec<String> = machine.open.iter().filter(|o| o.shown).map(|o| o.question.key.clone()).collect();
            let was = machine.state;
            let actions = match event {
                Event::Ask(count) => {
                    sets += 1;
                    let actions = machine.asked(now, sets, vec![question(); count]);
                    if actions.is_empty() {
                        expected.insert(sets, (1..=count).map(|at| format!("q{}", keys + at)).collect());
                        keys += count;
                    }
                    actions
                }
                Event::Withdraw(set) => {
                    machine.withdrawn(set);
                    expected.remove(&set);
                    Vec::new()
                }
                Event::Retry(back, pattern) => {
                    let of = round.saturating_sub(back).max(1);
                    // Each attempt says something that no other says.
                    let given: BTreeMap<String, Bytes> = shown.iter().enumerate()
                        .filter(|(at, _)| pattern & 1 << (at % 8) != 0)
                        .map(|(_, key)| (key.clone(), Bytes::from(format!("{step}{key}"))))
                        .collect();
                    let digest = [pattern; 32];
                    let actions = machine.retried(now, of, digest, &given);
                    if matches!(was, State::Parked { .. }) && actions.contains(&Action::Attach) {
                        prop_assert!(answered.insert(of, digest).is_none(), "a round is answered once");
                        taken.extend(given);
                        listeners += 1;
                    } else if actions.contains(&Action::Attach) {
                        prop_assert_eq!(answered.get(&of), Some(&digest));
                        listeners += 1;
                    }
                    actions
                }
                Event::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    machine.tick(now)
                }
                Event::Leave => machine.left(now),
                Event::End => machine.ended(now),
            };
            for action in actions {
                match action {
                    Action::Reply { set, replies } => {
                        let keys = expected.remove(&set).expect("a set is replied to once");
                        let said: Vec<Reply> = keys.iter().map(|key| Ok(taken[key].clone())).collect();
                        prop_assert_eq!(replies, said);
                    }
                    Action::Refuse { set } => _ = expected.remove(&set),
                    Action::Present { round: next } => {
                        prop_assert_eq!(next, round + 1);
                        round = next;
                        prop_assert!(std::mem::take(&mut listeners) > 0, "somebody hears the questions");
                    }
                    Action::Conclude => prop_assert!(std::mem::take(&mut listeners) > 0),
                    Action::Drop => listeners = 0,
                    Action::Attach | Action::GiveQuestions | Action::GiveOutcome | Action::Deny(_) | Action::Forget => {}
                }
            }
            prop_assert_eq!(machine.has_listener(), listeners > 0);
            prop_assert!(machine.open.len() <= QUESTIONS_MAX);
            prop_assert!(machine.sets.len() <= QUESTIONS_MAX);
            prop_assert!(machine.wake().is_none_or(|wake| wake <= start + LIFE_MAX.max(now - start) + ROUND_TTL));
            // An answer that was taken is either delivered or still held.
            for key in taken.keys() {
                prop_assert!(!machine.open.iter().any(|open| open.question.key == *key));
            }
        }
        // Left alone, it goes away.
        if matches!(machine.state, State::Running) {
            machine.ended(now);
        }
        for _ in 0..4 {
            now += LIFE_MAX;
            machine.tick(now);
        }
        prop_assert!(machine.is_over());
        prop_assert!(machine.open.is_empty() && machine.sets.is_empty());
    }
}
