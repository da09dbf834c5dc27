//! The checks on routes, which no node follows yet.

use std::collections::BTreeSet;

use super::{Kind, check::Checker};
use crate::pb::resource as pb;

pub(super) fn check(checker: &mut Checker<'_>, route: &pb::Route) {
    for (i, gateway) in route.gateways.iter().enumerate() {
        checker.reference(&format!("spec.gateways[{i}]"), Kind::Gateway, gateway);
    }
    checker.globs("spec.tools", &route.tools);
    let mut seen = BTreeSet::new();
    for (i, backend) in route.backends.iter().enumerate() {
        let path = format!("spec.backends[{i}].backend");
        checker.reference(&path, Kind::Backend, &backend.backend);
        if !seen.insert(&backend.backend) {
            checker.problem_with_hint(
                &path,
                format!("backend {:?} is in the list twice", backend.backend),
                "add their weights",
            );
        }
    }
    if !route.backends.is_empty() && route.backends.iter().all(|b| b.weight == Some(0)) {
        checker.problem("spec.backends", "no backend has a weight above 0, so no call could go anywhere");
    }
    if !route.disabled {
        checker.problem_with_hint(
            "spec.disabled",
            "no node of this version follows routes",
            "set `disabled: true` to keep it for later",
        );
    }
}
