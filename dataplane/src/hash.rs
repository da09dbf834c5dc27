//! Maps that a call looks into. Their hash is several times cheaper than the
//! standard library's, and seeded at random when the process starts. Strangers
//! cannot fill them with keys of their choice: names are the configuration's,
//! tokens are sealed by a node, and of a session's ids there are few.

use foldhash::fast::RandomState;

pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
pub type DashMap<K, V> = dashmap::DashMap<K, V, RandomState>;
