//! How a resource's URI tells which member of a gateway it belongs to.
//!
//! Only gateways in which more than one member serves resources wrap URIs:
//! `file:///a` of the backend `files` becomes `mt+files+file:///a`, which is
//! still a URI with a legal scheme (RFC 3986 §3.1) and keeps RFC 6570 templates
//! valid. `ui://x` becomes `ui://files+x`, because hosts look for that scheme.

use mt_proto::resource::ResourceName;

const SCHEME: &str = "mt+";
const UI: &str = "ui://";

/// The form that clients see.
pub fn wrap(backend: &ResourceName, uri: &str) -> String {
    match uri.strip_prefix(UI) {
        Some(rest) => format!("{UI}{backend}+{rest}"),
        None => format!("{SCHEME}{backend}+{uri}"),
    }
}

/// The backend and its own form; none if the URI is not a wrapped one.
pub fn unwrap(uri: &str) -> Option<(ResourceName, String)> {
    let (prefix, rest) = match uri.strip_prefix(UI) {
        Some(rest) => (UI, rest),
        None => ("", uri.strip_prefix(SCHEME)?),
    };
    let (backend, rest) = rest.split_once('+')?;
    Some((backend.parse().ok()?, format!("{prefix}{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_are_as_documented() {
        let files: ResourceName = "files".parse().unwrap();
        assert_eq!(wrap(&files, "file:///a"), "mt+files+file:///a");
        assert_eq!(wrap(&files, "ui://app/x"), "ui://files+app/x");
        assert_eq!(unwrap("file:///a+b"), None);
        assert_eq!(unwrap("mt+FILES+x:y"), None);
    }

    proptest! {
        #[test]
        fn what_is_wrapped_unwraps_to_itself(backend in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", uri in "(ui://|[a-z]{1,5}:)[!-~]{0,40}") {
            let backend: ResourceName = backend.parse().unwrap();
            prop_assert_eq!(unwrap(&wrap(&backend, &uri)), Some((backend, uri)));
        }
    }
}
