//! Rules on who may call: what is refused, how several add up, and where they go.

use std::collections::BTreeMap;

use mt_proto::{
    pb::resource::{self as pb, Anonymous as Wire, jwt_issuer::Keys, policy::Rule, resource::Spec},
    resource::{Anonymous, KeySource, Problem, ResourceSet},
};

fn resource(name: &str, spec: Spec) -> pb::Resource {
    let metadata = pb::Metadata { name: name.into(), ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(spec) }
}

fn gateway(name: &str, label: &str) -> pb::Resource {
    let mut gateway = resource(name, Spec::Gateway(pb::Gateway::default()));
    gateway.metadata.as_mut().unwrap().labels.insert("zone".into(), label.into());
    gateway
}

fn policy(name: &str, zone: Option<&str>, anonymous: Wire, jwt: Vec<pb::JwtIssuer>) -> pb::Resource {
    let rule = Some(Rule::Authn(pb::AuthnRule { jwt, anonymous: anonymous.into() }));
    let selector = |zone: &str| pb::LabelSelector {
        match_labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
    };
    resource(name, Spec::Policy(pb::Policy { gateways: zone.map(selector), rule, ..Default::default() }))
}

fn issuer(url: &str) -> pb::JwtIssuer {
    pb::JwtIssuer { issuer: url.into(), audiences: vec!["mcp".into()], ..Default::default() }
}

fn set(resources: Vec<pb::Resource>) -> ResourceSet {
    let (set, problems) = ResourceSet::gather(resources);
    assert_eq!(problems, []);
    set
}

fn problems(resources: Vec<pb::Resource>) -> Vec<String> {
    set(resources).compile().unwrap_err().iter().map(Problem::to_string).collect()
}

fn problems_of(change: impl FnOnce(&mut pb::JwtIssuer)) -> Vec<String> {
    let mut wire = issuer("https://id.example");
    change(&mut wire);
    problems(vec![policy("p", None, Wire::Unspecified, vec![wire])])
}

#[test]
fn rules_add_up_for_each_gateway() {
    let compiled = set(vec![
        gateway("free", "a"),
        gateway("open", "b"),
        gateway("shut", "c"),
        policy("1", Some("b"), Wire::Allowed, vec![issuer("https://one.example")]),
        policy("2", Some("c"), Wire::Allowed, vec![issuer("https://one.example")]),
        policy(
            "3",
            Some("c"),
            Wire::Refused,
            vec![issuer("https://one.example"), issuer("https://two.example")],
        ),
        policy("4", Some("c"), Wire::Unspecified, vec![]),
    ])
    .compile()
    .unwrap();
    let of = |gateway: &str| {
        let admission = &compiled.admissions[gateway];
        let issuers: Vec<_> = admission.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
        (admission.anonymous, issuers)
    };
    assert_eq!(of("free"), (Anonymous::Loopback, vec![]));
    assert_eq!(of("open"), (Anonymous::Allowed, vec!["https://one.example"]));
    assert_eq!(of("shut"), (Anonymous::Refused, vec!["https://one.example", "https://two.example"]));
}

#[test]
fn what_is_not_said_of_an_issuer_has_the_documented_default() {
    let rule = policy("p", None, Wire::Unspecified, vec![issuer("https://id.example/realm/")]);
    let compiled = set(vec![gateway("g", "a"), rule]).compile().unwrap();
    let issuer = &compiled.admissions["g"].issuers[0];
    let metadata = "https://id.example/realm/.well-known/openid-configuration".parse().unwrap();
    assert_eq!(issuer.keys, KeySource::Discovered { metadata });
    assert_eq!((issuer.principal_claim.as_str(), issuer.groups_claim.as_str()), ("sub", "groups"));
    assert_eq!(issuer.principal_prefix, "https://id.example/realm/#");
}

#[test]
fn what_is_wrong_with_an_issuer_is_said_with_its_place() {
    for (problem, expected) in [
        (problems_of(|i| i.audiences.clear()), "spec.authn.jwt[0].audiences: the audience is missing"),
        (problems_of(|i| i.audiences.push(String::new())), "audiences[1]: \"\" is not an audience"),
        (problems_of(|i| i.issuer = "id.example".into()), "issuer: \"id.example\" is not a url"),
        (problems_of(|i| i.issuer = "https://id.example?x".into()), "a query or a fragment"),
        (problems_of(|i| i.issuer = "http://id.example".into()), "issuer: the url is not encrypted"),
        (
            problems_of(|i| i.keys = Some(Keys::JwksUrl("http://x.example/".into()))),
            "jwksUrl: the url is not",
        ),
        (problems_of(|i| i.keys = Some(Keys::JwksFile(String::new()))), "jwksFile: the path is empty"),
        (problems_of(|i| i.principal_prefix = "corp-".into()), "a token could name a Principal"),
        (
            problems_of(|i| i.groups_claim = "a\nb".into()),
            "groupsClaim: \"a\\nb\" is not the name of a claim",
        ),
    ] {
        assert!(problem.iter().any(|text| text.contains(expected)), "{expected}: {problem:?}");
    }
}

#[test]
fn no_two_issuers_can_name_the_same_caller() {
    let with = |url: &str, prefix: &str| pb::JwtIssuer { principal_prefix: prefix.into(), ..issuer(url) };
    let rules = |prefixes: &[(&str, &str)]| -> Vec<pb::Resource> {
        let jwt = prefixes.iter().map(|(host, prefix)| with(&format!("https://{host}.example"), prefix));
        vec![policy("p", None, Wire::Unspecified, jwt.collect())]
    };
    for clash in [
        &[("a", "x:"), ("b", "x:")][..],
        &[("a", "x:"), ("b", "x:y:")],
        &[("b", "x:y:"), ("a", "x:")],
        &[("a", "x:"), ("a", "x:z"), ("b", "x:y:")],
    ] {
        assert!(problems(rules(clash))[0].contains("could name callers of"), "{clash:?}");
    }
    for fine in [&[("a", "x:"), ("b", "y:")][..], &[("a", "x:"), ("a", "x:y:")], &[("a", ""), ("b", "")]] {
        assert!(set(rules(fine)).compile().is_ok(), "{fine:?}");
    }
}

#[test]
fn who_may_call_is_decided_for_whole_gateways() {
    let mut rule = policy("p", None, Wire::Refused, vec![]);
    if let Some(Spec::Policy(policy)) = &mut rule.spec {
        policy.backends = Some(pb::LabelSelector::default());
        policy.tools = vec!["*".into()];
    }
    let found = problems(vec![rule]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("policy/p:spec.backends: who may call"), "{found:?}");
}

#[test]
fn nobody_is_called_what_nobody_is_called() {
    for name in ["anonymous", "node"] {
        let found = problems(vec![resource(name, Spec::Principal(pb::Principal::default()))]);
        assert!(found[0].contains("metadata.name"), "{found:?}");
    }
}

#[test]
fn a_node_gets_the_rules_of_its_gateways_and_everybody_who_may_call() {
    // The gateway has no backend: a rule on who may call is needed all the same.
    let key = "0".repeat(64);
    let principal = pb::Principal { api_key_sha256: vec![key], ..Default::default() };
    let mut elsewhere = gateway("elsewhere", "b");
    if let Some(Spec::Gateway(gateway)) = &mut elsewhere.spec {
        let match_labels = BTreeMap::from([("site".to_owned(), "x".to_owned())]);
        gateway.nodes = Some(pb::LabelSelector { match_labels });
    }
    let set = set(vec![
        gateway("here", "a"),
        elsewhere,
        policy("all", None, Wire::Refused, vec![]),
        policy("ours", Some("a"), Wire::Refused, vec![]),
        policy("theirs", Some("b"), Wire::Refused, vec![]),
        resource("alice", Spec::Principal(principal)),
    ]);
    let part = set.subset_for(&BTreeMap::new());
    let keys: Vec<String> = part.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["gateway/here", "policy/all", "policy/ours", "principal/alice"]);
    let compiled = part.compile().unwrap();
    assert_eq!(compiled.principals[&[0; 32]].name.as_str(), "alice");
    assert_eq!(compiled.admissions["here"].anonymous, Anonymous::Refused);
}
