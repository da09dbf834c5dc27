//! Secrets, and what the node's environment holds, which may be as secret: they go
//! where a tool sends them, and do not come back in what is told of its failure.

use parking_lot::Mutex;

/// Shorter values cannot be hidden without hiding everything else.
const BYTES_MIN: usize = 6;
/// Words of one value that are hidden by themselves.
const WORDS_MAX: usize = 100;

/// What one call has read of secrets and of the environment.
#[derive(Default)]
pub(crate) struct Withheld(Mutex<Vec<String>>);

impl Withheld {
    pub fn add(&self, value: &str) {
        let mut all = self.0.lock();
        for part in parts(value) {
            // A loop in a template reads the same variable again and again.
            if !all.contains(&part) {
                all.push(part);
            }
        }
    }

    /// All of it, so far.
    pub fn values(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// A text without any of it.
    pub fn hide(&self, text: &str) -> String {
        hide(text, &self.0.lock())
    }
}

/// A value as services and programs repeat it: without the spaces around it, or a
/// word of it, such as the token of `Bearer TOKEN` or a line of a key.
fn parts(value: &str) -> impl Iterator<Item = String> + '_ {
    let words = value.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("bearer"));
    let parts = std::iter::once(value.trim()).chain(words.take(WORDS_MAX));
    parts.filter(|part| part.len() >= BYTES_MIN).map(str::to_owned)
}

/// A text in which `secrets` are `***`. To be called before anything is cut off:
/// half of one is not found any more.
pub(crate) fn hide(text: &str, secrets: &[String]) -> String {
    let mut secrets: Vec<&str> =
        secrets.iter().map(String::as_str).filter(|secret| secret.len() >= BYTES_MIN).collect();
    // One may begin with another.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| match text.contains(secret) {
        true => text.replace(secret, "***"),
        false => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_hidden_first_and_what_is_too_short_stays() {
        let secrets = ["svc-user", "svc-user-7f3a9", "me", ""].map(str::to_owned);
        assert_eq!(hide("svc-user-7f3a9 is not svc-user; method", &secrets), "*** is not ***; method");
    }

    #[test]
    fn a_value_is_hidden_without_its_line_ends_and_word_by_word() {
        let withheld = Withheld::default();
        withheld.add("s3cret-value\r\n");
        withheld.add("-----BEGIN\nMIIabcdef\n-----END\n");
        withheld.add("Bearer abc123");
        assert_eq!(withheld.hide("a s3cret-value, MIIabcdef"), "a ***, ***");
        assert_eq!(withheld.hide("Bearer is not for abc123"), "Bearer is not for ***");
    }

    #[test]
    fn what_is_read_many_times_is_kept_once_and_a_long_value_not_without_end() {
        let withheld = Withheld::default();
        (0..1_000).for_each(|_| withheld.add("s3cret-value"));
        assert_eq!(withheld.values().len(), 1);
        withheld.add(&(0..10_000).map(|n| format!("line-{n}\n")).collect::<String>());
        assert_eq!(withheld.values().len(), 1 + 1 + WORDS_MAX);
    }
}
