//! Whole admissions: a configuration, what is shown, and who it is.

pub mod signer;

use std::net::Ipv4Addr;

use aws_lc_rs::rsa::KeySize;
use http::{HeaderValue, header::AUTHORIZATION};
use mt_proto::{
    pb::resource::{self as pb, resource::Spec},
    resource::ResourceSet,
};
use serde_json::{Value, json};

use self::signer::{Signer, encode, hmac_token, jwks, unsigned};
use super::*;

const ISSUER: &str = "https://id.example";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn resource(name: &str, spec: Spec) -> pb::Resource {
    let metadata = pb::Metadata { name: name.into(), ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(spec) }
}

fn config(rules: Vec<pb::AuthnRule>, principals: &[(&str, &[&str], &str)]) -> Compiled {
    let mut all = vec![resource("default", Spec::Gateway(pb::Gateway::default()))];
    for (i, rule) in rules.into_iter().enumerate() {
        let rule = Some(pb::policy::Rule::Authn(rule));
        all.push(resource(&format!("rule-{i}"), Spec::Policy(pb::Policy { rule, ..Default::default() })));
    }
    for (name, groups, key) in principals {
        let hex = hash(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let groups = groups.iter().map(ToString::to_string).collect();
        let principal = pb::Principal { groups, api_key_sha256: vec![hex], ..Default::default() };
        all.push(resource(name, Spec::Principal(principal)));
    }
    let (set, problems) = ResourceSet::gather(all);
    assert_eq!(problems, []);
    set.compile().unwrap()
}

fn anonymous(anonymous: pb::Anonymous) -> Vec<pb::AuthnRule> {
    vec![pb::AuthnRule { anonymous: anonymous.into(), ..Default::default() }]
}

fn bearer(secret: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {secret}")).unwrap());
    headers
}

fn auth() -> Auth {
    Auth::new(TaskTracker::new())
}

/// The principal, or the refusal in words.
async fn who(config: &Compiled, headers: &HeaderMap, peer: IpAddr) -> Result<String, Refusal> {
    let admitted = auth().admit(config, "default", headers, peer).await?;
    Ok(admitted.identity.principal.to_string())
}

#[tokio::test]
async fn who_shows_nothing_is_served_as_the_rule_says() {
    use pb::Anonymous::{Allowed, Loopback, Refused};
    let nothing = HeaderMap::new();
    let nobody = || Ok("anonymous".to_owned());
    for (rules, here, elsewhere) in [
        (vec![], nobody(), Err(Refusal::NotLocal)),
        (anonymous(Loopback), nobody(), Err(Refusal::NotLocal)),
        (anonymous(Allowed), nobody(), nobody()),
        (anonymous(Refused), Err(Refusal::Missing), Err(Refusal::Missing)),
        ([anonymous(Allowed), anonymous(Refused)].concat(), Err(Refusal::Missing), Err(Refusal::Missing)),
    ] {
        let config = config(rules, &[]);
        assert_eq!(who(&config, &nothing, HERE).await, here);
        assert_eq!(who(&config, &nothing, ELSEWHERE).await, elsewhere);
    }
}

#[tokio::test]
async fn what_a_proxy_on_this_machine_passes_on_is_not_local() {
    let config = config(vec![], &[]);
    for name in PROXY_HEADERS {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("203.0.113.9"));
        assert_eq!(who(&config, &headers, HERE).await, Err(Refusal::NotLocal));
    }
    let mapped = "::ffff:127.0.0.1".parse().unwrap();
    assert!(is_local(&HeaderMap::new(), mapped));
}

#[tokio::test]
async fn a_key_names_its_principal_from_everywhere() {
    let config =
        config(anonymous(pb::Anonymous::Refused), &[("alice", &["ops"], "mt_a"), ("bob", &[], "mt_b")]);
    assert_eq!(who(&config, &bearer("mt_a"), ELSEWHERE).await, Ok("alice".to_owned()));
    assert_eq!(who(&config, &bearer("mt_b"), HERE).await, Ok("bob".to_owned()));
    let admitted = auth().admit(&config, "default", &bearer("mt_a"), HERE).await.unwrap();
    assert_eq!((&*admitted.identity.groups[0], admitted.identity.shown), ("ops", Shown::ApiKey));
}

#[tokio::test]
async fn whoever_shows_something_wrong_is_not_served_as_nobody() {
    let config = config(anonymous(pb::Anonymous::Allowed), &[("alice", &[], "mt_a")]);
    for wrong in ["mt_c", "mt_a ", "MT_A", "x", "a.b.c"] {
        let headers = bearer(wrong);
        let admitted = who(&config, &headers, HERE).await;
        match wrong.trim() {
            "mt_a" => assert_eq!(admitted, Ok("alice".to_owned())),
            "a.b.c" => assert!(matches!(admitted, Err(Refusal::Token(_)))),
            _ => assert_eq!(admitted, Err(Refusal::UnknownKey)),
        }
    }
}

#[tokio::test]
async fn an_unknown_gateway_tells_strangers_nothing_and_costs_others_no_credentials() {
    let config = config(vec![], &[]);
    let admit =
        async |headers: &HeaderMap, peer| auth().admit(&config, "other", headers, peer).await.map(drop);
    assert_eq!(admit(&HeaderMap::new(), ELSEWHERE).await, Err(Refusal::NotLocal));
    assert_eq!(admit(&HeaderMap::new(), HERE).await, Ok(()));
    assert_eq!(admit(&bearer("a.b.c"), ELSEWHERE).await, Ok(()));
}

#[tokio::test]
async fn a_door_without_headers_takes_a_key_from_its_surroundings() {
    let config = config(anonymous(pb::Anonymous::Refused), &[("alice", &[], "mt_a")]);
    let admitted = auth().admit_local(&config, "default", Some("mt_a")).await.unwrap();
    assert_eq!(&*admitted.identity.principal, "alice");
    assert_eq!(auth().admit_local(&config, "default", None).await.unwrap_err(), Refusal::Missing);
    assert!(auth().admit_local(&config, "default", Some("")).await.is_err());
}

#[tokio::test]
async fn a_right_ends_when_its_reason_does() {
    let before = config(vec![], &[("alice", &[], "mt_a")]);
    let by_key = auth().admit(&before, "default", &bearer("mt_a"), HERE).await.unwrap();
    let by_place = auth().admit(&before, "default", &HeaderMap::new(), HERE).await.unwrap();
    assert!(by_key.holds(&before, "default", 0) && by_place.holds(&before, "default", 0));
    let revoked = config(anonymous(pb::Anonymous::Refused), &[("alice", &[], "mt_b")]);
    assert!(!by_key.holds(&revoked, "default", 0) && !by_place.holds(&revoked, "default", 0));
    let given_away = config(vec![], &[("bob", &[], "mt_a")]);
    assert!(!by_key.holds(&given_away, "default", 0));
    assert!(!by_key.holds(&before, "other", 0));
}

struct Table {
    auth: Auth,
    config: Compiled,
    _dir: tempfile::TempDir,
}

impl Table {
    fn new(keys: &[Value], change: impl FnOnce(&mut pb::JwtIssuer)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        std::fs::write(&file, jwks(keys)).unwrap();
        let mut issuer = pb::JwtIssuer {
            issuer: ISSUER.into(),
            audiences: vec!["mcp".into(), "https://mcp.example/mcp".into()],
            keys: Some(pb::jwt_issuer::Keys::JwksFile(file.to_str().unwrap().into())),
            principal_prefix: "corp:".into(),
            ..Default::default()
        };
        change(&mut issuer);
        let rule = pb::AuthnRule { jwt: vec![issuer], anonymous: pb::Anonymous::Allowed.into() };
        Self { auth: auth(), config: config(vec![rule], &[("alice", &[], "mt_a")]), _dir: dir }
    }

    async fn admit(&self, token: &str) -> Result<Arc<Identity>, Refusal> {
        let admitted = self.auth.admit(&self.config, "default", &bearer(token), ELSEWHERE).await;
        admitted.map(|admitted| admitted.identity)
    }

    async fn invalid(&self, what: &str, token: &str, expected: Invalid) {
        let refusal = self.admit(token).await.expect_err(what);
        assert_eq!(refusal, Refusal::Token(expected), "{what}");
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "mcp", "sub": "alice", "exp": now() + 600})
}

/// The usual claims, with one of them as given; `null` takes it out.
fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => _ = claims.as_object_mut().unwrap().remove(claim),
        value => claims[claim] = value,
    }
    claims
}

#[tokio::test]
async fn tokens_that_are_right_are_taken() {
    let (rsa, p256, p384, ed) =
        (Signer::rsa("rsa", KeySize::Rsa2048), Signer::p256("p256"), Signer::p384("p384"), Signer::ed("ed"));
    let table = Table::new(&[rsa.jwk(), p256.jwk(), p384.jwk(), ed.jwk()], |_| {});
    for (signer, algorithm) in [
        (&rsa, "RS256"),
        (&rsa, "RS384"),
        (&rsa, "RS512"),
        (&rsa, "PS256"),
        (&rsa, "PS384"),
        (&rsa, "PS512"),
        (&p256, "ES256"),
        (&p384, "ES384"),
        (&ed, "EdDSA"),
        (&ed, "Ed25519"),
    ] {
        let identity = table.admit(&signer.token(algorithm, &claims())).await;
        assert_eq!(&*identity.expect(algorithm).principal, "corp:alice");
    }
    for (what, claims) in [
        ("audience in a list", with("aud", json!(["x", "https://mcp.example/mcp"]))),
        ("expiry with a fraction", with("exp", json!(now() as f64 + 60.5))),
        ("expired within what clocks differ", with("exp", json!(now() - LEEWAY_TEST))),
        ("valid within what clocks differ", with("nbf", json!(now() + LEEWAY_TEST))),
        ("never expires", with("exp", json!(1e300))),
        ("no groups", with("groups", json!([]))),
    ] {
        table.admit(&ed.token("EdDSA", &claims)).await.expect(what);
    }
    for header in [
        json!({"alg": "ES256"}),
        json!({"alg": "ES256", "kid": "p256", "typ": "at+jwt"}),
        json!({"alg": "ES256", "kid": "p256", "typ": "application/AT+JWT", "x": [1]}),
    ] {
        table.admit(&p256.token_with(&header, &claims())).await.expect("a header that is right");
    }
    for (groups, expected) in [(json!("a b"), ["a", "b"]), (json!(["a", "b c"]), ["a", "b c"])] {
        let identity = table.admit(&ed.token("EdDSA", &with("groups", groups))).await.unwrap();
        assert_eq!(identity.groups.iter().map(|g| &**g).collect::<Vec<_>>(), expected);
    }
}

const LEEWAY_TEST: u64 = token::LEEWAY / 2;

#[tokio::test]
async fn claims_that_are_wrong_are_refused() {
    let signer = Signer::ed("ed");
    let table = Table::new(&[signer.jwk()], |_| {});
    for (claim, value, expected) in [
        ("iss", json!("https://id.example/"), Invalid::Issuer),
        ("iss", json!("https://evil.example"), Invalid::Issuer),
        ("iss", json!([ISSUER]), Invalid::Issuer),
        ("iss", Value::Null, Invalid::Issuer),
        ("aud", json!("mcp2"), Invalid::Audience),
        ("aud", json!(["MCP"]), Invalid::Audience),
        ("aud", json!([["mcp"]]), Invalid::Audience),
        ("aud", json!({"mcp": true}), Invalid::Audience),
        ("aud", Value::Null, Invalid::Audience),
        ("exp", json!(now() - 60), Invalid::Expired),
        ("exp", json!(0), Invalid::Expired),
        ("exp", Value::Null, Invalid::NoExpiry),
        ("exp", json!("4102444800"), Invalid::Malformed),
        ("exp", json!(-1), Invalid::Malformed),
        ("nbf", json!(now() + 60), Invalid::NotYet),
        ("nbf", json!("now"), Invalid::Malformed),
        ("sub", Value::Null, Invalid::Principal),
        ("sub", json!(""), Invalid::Principal),
        ("sub", json!(7), Invalid::Principal),
        ("sub", json!("a\nb"), Invalid::Principal),
        ("sub", json!("x".repeat(257)), Invalid::Principal),
        ("groups", json!({"a": 1}), Invalid::Groups),
        ("groups", json!(["a", 1]), Invalid::Groups),
        ("groups", json!(vec!["g"; 513]), Invalid::Groups),
    ] {
        let what = format!("{claim} {value}");
        table.invalid(&what, &signer.token("EdDSA", &with(claim, value)), expected).await;
    }
}

#[tokio::test]
async fn what_is_signed_wrongly_is_refused() {
    let (rsa, p256, ed) = (Signer::rsa("rsa", KeySize::Rsa2048), Signer::p256("p256"), Signer::ed("ed"));
    let table = Table::new(&[rsa.jwk(), p256.jwk(), ed.jwk()], |_| {});
    let evil = Signer::ed("ed");
    let header = |algorithm: &str, kid: &str| json!({"alg": algorithm, "kid": kid});
    // A public key as a shared secret, and no signature at all.
    let public = rsa.jwk()["n"].as_str().unwrap().to_owned();
    for (algorithm, kid) in [("HS256", "rsa"), ("HS384", "rsa"), ("hs256", "ed")] {
        let token = hmac_token(&header(algorithm, kid), &claims(), &public);
        table.invalid(algorithm, &token, Invalid::Algorithm).await;
    }
    for none in ["none", "None", "nOnE", "", "ES512", "ES256K", "RSA-OAEP", "dir"] {
        let token = format!("{}.", unsigned(&header(none, "ed"), &claims()));
        table.invalid(none, &token, Invalid::Algorithm).await;
        table.invalid(none, &ed.token_with(&header(none, "ed"), &claims()), Invalid::Algorithm).await;
    }
    // The algorithm of another type of key.
    for (signer, algorithm, kid) in [(&p256, "ES256", "rsa"), (&rsa, "RS256", "p256"), (&ed, "EdDSA", "rsa")]
    {
        table.invalid(kid, &signer.token_with(&header(algorithm, kid), &claims()), Invalid::UnknownKey).await;
    }
    for kid in ["", "../../../../dev/null", "' OR 1=1 --", "https://evil.example/jwks", "ED", "ed\u{0}", "x"]
    {
        table.invalid(kid, &evil.token_with(&header("EdDSA", kid), &claims()), Invalid::UnknownKey).await;
    }
    let long = "k".repeat(2000);
    table.invalid("long", &evil.token_with(&header("EdDSA", &long), &claims()), Invalid::UnknownKey).await;
    // Keys that the token brings along.
    for (name, value) in [
        ("jwk", evil.jwk()),
        ("jku", json!("http://127.0.0.1:9/jwks")),
        ("x5u", json!("http://127.0.0.1:9/")),
    ] {
        let mut header = header("EdDSA", "ed");
        header[name] = value;
        table.invalid(name, &evil.token_with(&header, &claims()), Invalid::Signature).await;
    }
    table
        .invalid("no key id", &evil.token_with(&json!({"alg": "EdDSA"}), &claims()), Invalid::Signature)
        .await;
    let mut critical = header("EdDSA", "ed");
    (critical["crit"], critical["b64"]) = (json!(["b64"]), json!(false));
    table.invalid("critical", &ed.token_with(&critical, &claims()), Invalid::Critical).await;
    for typ in ["logout+jwt", "dpop+jwt", "JWE", ""] {
        let mut header = header("EdDSA", "ed");
        header["typ"] = json!(typ);
        table.invalid(typ, &ed.token_with(&header, &claims()), Invalid::Type).await;
    }
}

#[tokio::test]
async fn what_is_no_whole_token_is_refused() {
    let signer = Signer::ed("ed");
    let table = Table::new(&[signer.jwk()], |_| {});
    let good = signer.token("EdDSA", &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let other = encode(with("sub", json!("root")).to_string().as_bytes());
    let nested = encode(format!("{}1{}", "[".repeat(500), "]".repeat(500)).as_bytes());
    let twice = encode(br#"{"alg":"EdDSA","alg":"none","kid":"ed"}"#);
    for (what, token, expected) in [
        ("changed claims", format!("{header}.{other}.{signature}"), Invalid::Signature),
        ("no signature", format!("{signed}."), Invalid::Signature),
        ("half a signature", format!("{signed}.{}", &signature[..40]), Invalid::Signature),
        ("another signature", format!("{signed}.{}", encode(&[7; 64])), Invalid::Signature),
        ("padding", format!("{signed}.{signature}=="), Invalid::Signature),
        ("no header", format!(".{payload}.{signature}"), Invalid::Malformed),
        ("no claims", format!("{header}..{signature}"), Invalid::Malformed),
        ("not base64", format!("{header}!.{payload}.{signature}"), Invalid::Malformed),
        ("claims that are a list", format!("{header}.{}.{signature}", encode(b"[]")), Invalid::Malformed),
        ("claims too deep", format!("{header}.{nested}.{signature}"), Invalid::Malformed),
        ("two algorithms", format!("{twice}.{payload}.{signature}"), Invalid::Malformed),
        (
            "an id that is a number",
            signer.token_with(&json!({"alg": "EdDSA", "kid": 1}), &claims()),
            Invalid::Malformed,
        ),
    ] {
        table.invalid(what, &token, expected).await;
    }
    let huge = signer.token("EdDSA", &with("sub", json!("x".repeat(20_000))));
    assert!(matches!(table.admit(&huge).await, Err(Refusal::Malformed(_))));
    for parts in [format!("{good}.x"), signed.to_owned()] {
        assert_eq!(table.admit(&parts).await.unwrap_err(), Refusal::UnknownKey);
    }
}

#[tokio::test]
async fn keys_that_are_of_no_use_here_are_left_out() {
    let (weak, sound, encrypts) =
        (Signer::p256("weak"), Signer::ed("sound"), Signer::rsa("encrypts", KeySize::Rsa2048));
    let mut short = Signer::rsa("short", KeySize::Rsa2048).jwk();
    short["n"] = json!(encode(&[0xc1; 128]));
    let mut enc = encrypts.jwk();
    enc["use"] = json!("enc");
    let mut mismatched = weak.jwk();
    mismatched["alg"] = json!("RS256");
    let secret = json!({"kty": "oct", "kid": "secret", "k": encode(b"secret")});
    let table = Table::new(&[short, enc, mismatched, secret, json!(7), json!({}), sound.jwk()], |_| {});
    table.admit(&sound.token("EdDSA", &claims())).await.unwrap();
    table.invalid("for encryption", &encrypts.token("RS256", &claims()), Invalid::UnknownKey).await;
    table.invalid("of another algorithm", &weak.token("ES256", &claims()), Invalid::UnknownKey).await;
    let shared = hmac_token(&json!({"alg": "HS256", "kid": "secret"}), &claims(), "secret");
    table.invalid("shared secret", &shared, Invalid::Algorithm).await;
}

#[tokio::test]
async fn the_claims_that_name_the_caller_can_be_chosen() {
    let signer = Signer::ed("ed");
    let table = Table::new(&[signer.jwk()], |issuer| {
        issuer.principal_claim = "email".into();
        issuer.groups_claim = "https://id.example/roles".into();
        issuer.principal_prefix.clear();
    });
    let mut claims = with("email", json!("a@b.example"));
    claims["https://id.example/roles"] = json!("admin");
    let identity = table.admit(&signer.token("EdDSA", &claims)).await.unwrap();
    assert_eq!(&*identity.principal, "https://id.example#a@b.example");
    assert_eq!(&*identity.groups[0], "admin");
}

#[tokio::test]
async fn a_token_that_was_right_is_known_again_until_it_expires() {
    let signer = Signer::ed("ed");
    let table = Table::new(&[signer.jwk()], |_| {});
    let token = signer.token("EdDSA", &claims());
    let first = table.admit(&token).await.unwrap();
    let again = table.admit(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    // Another rule for the same issuer does not profit from it.
    let strict = Table::new(&[signer.jwk()], |issuer| issuer.audiences = vec!["other".into()]);
    let auth = &table.auth;
    let refused = auth.admit(&strict.config, "default", &bearer(&token), HERE).await.unwrap_err();
    assert_eq!(refused, Refusal::Token(Invalid::Audience));
}

#[tokio::test]
async fn without_the_keys_of_an_issuer_nobody_is_told_that_the_token_is_wrong() {
    let signer = Signer::ed("ed");
    let table = Table::new(&[], |_| {});
    let refusal = table.admit(&signer.token("EdDSA", &claims())).await.unwrap_err();
    assert_eq!(refusal, Refusal::Unavailable);
}
