//! Clients whose ids and progress tokens are the same, and what of that reaches
//! the wrong one.

use tokio::task::JoinSet;

use super::{Case, Client, Era, Target, What};

/// A gateway whose only member is a process.
const PIPE: &str = "/g/pipe/mcp";

const fn told(name: &'static str, era: Era) -> Case {
    Case { progress: true, ..Case::new(name, era, What::Echo(16)).at(PIPE) }
}

/// Where ids and tokens of many clients meet: on the pipe all of them share one
/// process.
pub const COLLISIONS: &[Case] = &[
    Case::new("HTTP backend, sessions", Era::Legacy, What::Echo(16)),
    Case::new("HTTP backend, stateless", Era::Modern, What::Echo(16)),
    told("one process, sessions", Era::Legacy),
    told("one process, stateless", Era::Modern),
];

/// What came of a collision.
pub struct Counted {
    pub calls: u64,
    pub misrouted: u64,
}

/// Lets `clients` call at once until `calls` are answered, all with the same ids.
///
/// # Errors
/// If a call has no answer at all.
pub async fn collide(target: &Target, case: &Case, clients: usize, calls: u64) -> anyhow::Result<Counted> {
    let each = calls.div_ceil(clients as u64);
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::connect(target, case, number).await?;
        running.spawn(async move {
            let mut misrouted = 0;
            for _ in 0..each {
                let answer = client.exchange().await?;
                misrouted += u64::from(!answer.is_some_and(|answer| client.asker.is_own(&answer)));
            }
            anyhow::Ok(misrouted)
        });
    }
    let mut misrouted = 0;
    while let Some(done) = running.join_next().await {
        misrouted += done??;
    }
    Ok(Counted { calls: each * clients as u64, misrouted })
}
