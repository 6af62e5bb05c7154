//! Buyers identified by a token or by a trusted proxy, and forgeries of both.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use spikegate::auth::jwt::{Algorithm, Key, TokenError, TokenRules, Verifier};

use crate::harness::client::everything;
use crate::harness::purchase::{Outcome, buy, purchase, purchase_with_key};
use crate::harness::signer::{Signer, base64url, now_s, unsigned};
use crate::harness::{Answer, Backend, Connection, Edge, Request};

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

fn rules(keys: Vec<Key>) -> TokenRules {
    let audiences = vec!["tickets".to_owned(), "events".to_owned()];
    TokenRules {
        keys,
        issuers: vec!["https://id.example".to_owned()],
        audiences,
        leeway: 5 * SECOND,
        claim: "sub".to_owned(),
    }
}

fn public(signer: &Signer) -> Key {
    Key::public(&std::fs::read(signer.public_file()).unwrap()).unwrap()
}

fn secret(signer: &Signer) -> Key {
    Key::secret(&std::fs::read_to_string(signer.secret_file()).unwrap()).unwrap()
}

/// Claims that are good, and some of them changed; `null` takes one away.
fn claims(changes: Value) -> Value {
    let now_s = now_s();
    let mut claims =
        json!({ "sub": "ann", "aud": "tickets", "iss": "https://id.example", "exp": now_s + 3600, "nbf": now_s });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().shift_remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[test]
fn a_token_proves_its_buyer_only_if_everything_is_right() {
    let signer = Signer::eddsa();
    let verifier = Verifier::new(&rules(vec![public(&signer)]));
    let now_s = now_s();
    let ok = |buyer: &str| Ok(buyer.to_owned());
    let table = [
        (json!({}), ok("ann")),
        (json!({ "aud": ["others", "events"] }), ok("ann")),
        (json!({ "sub": 17 }), ok("17")),
        (json!({ "sub": "Анна ½" }), ok("Анна ½")),
        (json!({ "nbf": null }), ok("ann")),
        (json!({ "exp": now_s - 3 }), ok("ann")),
        (json!({ "exp": now_s - 60 }), Err(TokenError::Expired)),
        (json!({ "exp": 0 }), Err(TokenError::Expired)),
        (json!({ "exp": null }), Err(TokenError::Claim)),
        (json!({ "exp": "never" }), Err(TokenError::Claim)),
        (json!({ "exp": -1 }), Err(TokenError::Claim)),
        (json!({ "nbf": now_s + 60 }), Err(TokenError::Early)),
        (json!({ "nbf": "later" }), Err(TokenError::Claim)),
        (json!({ "aud": "others" }), Err(TokenError::Audience)),
        (json!({ "aud": ["others"] }), Err(TokenError::Audience)),
        (json!({ "aud": [] }), Err(TokenError::Audience)),
        (json!({ "aud": null }), Err(TokenError::Claim)),
        (json!({ "aud": 1 }), Err(TokenError::Claim)),
        (json!({ "iss": "https://elsewhere.example" }), Err(TokenError::Issuer)),
        (json!({ "iss": null }), Err(TokenError::Claim)),
        (json!({ "sub": null }), Err(TokenError::Claim)),
        (json!({ "sub": "" }), Err(TokenError::Claim)),
        (json!({ "sub": "a\nb" }), Err(TokenError::Claim)),
        (json!({ "sub": "x".repeat(129) }), Err(TokenError::Claim)),
        (json!({ "sub": ["ann"] }), Err(TokenError::Malformed)),
        (json!({ "sub": 1.5 }), Err(TokenError::Claim)),
        (json!({ "sub": true }), Err(TokenError::Claim)),
    ];
    for (changes, expected) in table {
        assert_eq!(verifier.buyer(&signer.token(&json!({}), &claims(changes.clone()))), expected, "{changes}");
    }
    let critical = signer.token(&json!({ "crit": ["b64"], "b64": false }), &claims(json!({})));
    assert_eq!(verifier.buyer(&critical), Err(TokenError::Malformed));
    // A key in the header is whose who sent it.
    let other = Signer::eddsa();
    let with_key = other.token(&json!({ "jwk": other.jwk("k") }), &claims(json!({})));
    assert_eq!(verifier.buyer(&with_key), Err(TokenError::Signature));
}

#[test]
fn no_algorithm_is_taken_for_another() {
    let (rsa, edwards, shared) = (Signer::rs256(2048), Signer::eddsa(), Signer::hs256());
    let claims = claims(json!({}));
    let public_keys = Verifier::new(&rules(vec![public(&rsa), public(&edwards)]));
    let all = Verifier::new(&rules(vec![public(&rsa), public(&edwards), secret(&shared)]));
    for signer in [&rsa, &edwards] {
        let token = signer.token(&json!({}), &claims);
        assert_eq!([public_keys.buyer(&token), all.buyer(&token)], [Ok("ann".to_owned()), Ok("ann".to_owned())]);
    }
    let token = shared.token(&json!({}), &claims);
    assert_eq!([public_keys.buyer(&token), all.buyer(&token)], [Err(TokenError::Key), Ok("ann".to_owned())]);

    // Nobody signed it.
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let token = unsigned(&json!({ "alg": name, "typ": "JWT" }), &claims);
        for token in [format!("{token}."), format!("{token}.AA"), token] {
            assert_eq!(all.buyer(&token), Err(TokenError::Malformed), "{name}");
        }
    }
    // The public key, which everybody may have, as a secret: in PEM, in DER, and as the numbers alone.
    let pem = std::fs::read(rsa.public_file()).unwrap();
    let text = String::from_utf8(pem.clone()).unwrap();
    for guess in [
        pem,
        text.trim().as_bytes().to_vec(),
        text.lines().filter(|line| !line.starts_with('-')).collect::<String>().into(),
    ] {
        let token = Signer::with_secret(&guess).token(&json!({}), &claims);
        assert_eq!(public_keys.buyer(&token), Err(TokenError::Key));
        assert_eq!(all.buyer(&token), Err(TokenError::Signature));
    }
    // A good signature under the name of another algorithm.
    for (signer, names) in [
        (&rsa, ["RS384", "RS512", "PS256", "HS256", "EdDSA", "ES256"]),
        (&edwards, ["RS256", "HS256", "ES256", "PS256", "HS512", "RS512"]),
        (&shared, ["RS256", "EdDSA", "HS384", "HS512", "ES256", "PS256"]),
    ] {
        for name in names {
            let token = signer.token(&json!({ "alg": name }), &claims);
            assert!(matches!(all.buyer(&token), Err(TokenError::Key | TokenError::Signature)), "{name}");
        }
    }
}

#[test]
fn a_token_is_signed_as_a_whole() {
    let signer = Signer::hs256();
    let verifier = Verifier::new(&rules(vec![secret(&signer)]));
    let token = signer.token(&json!({}), &claims(json!({})));
    assert_eq!(verifier.buyer(&token), Ok("ann".to_owned()));
    let [header, payload, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let bob = base64url(claims(json!({ "sub": "bob" })).to_string().as_bytes());
    for (forged, why) in [
        (format!("{header}.{bob}.{signature}"), TokenError::Signature),
        (format!("{header}.{payload}."), TokenError::Signature),
        (format!("{header}.{payload}.{}", &signature[..40]), TokenError::Signature),
        (format!("{header}.{payload}.{signature}="), TokenError::Malformed),
        (format!("{header}.{payload}"), TokenError::Malformed),
        (format!("{payload}.{signature}"), TokenError::Malformed),
        (format!("{token}.{signature}"), TokenError::Malformed),
        (format!(" {token}"), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        (Signer::hs256().token(&json!({}), &claims(json!({}))), TokenError::Signature),
    ] {
        assert_eq!(verifier.buyer(&forged), Err(why), "{forged}");
    }
}

#[test]
fn keys_of_a_set_are_known_by_their_names() {
    let (old, new, edwards) = (Signer::rs256(2048), Signer::rs256(2048), Signer::eddsa());
    let others = json!([
        { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "curve" },
        { "kty": "oct", "k": base64url(&[7; 64]), "kid": "shared" },
        { "kty": "oct", "k": base64url(&std::fs::read(old.public_file()).unwrap()), "kid": "public" },
        { "kty": "new-kind", "kid": "unknown" },
    ]);
    let mut keys = vec![old.jwk("old"), new.jwk("new"), edwards.jwk("edwards")];
    keys.push({
        let mut encrypts = new.jwk("encrypts");
        encrypts["use"] = json!("enc");
        encrypts
    });
    keys.extend(others.as_array().unwrap().clone());
    let set = |algorithms: &[Algorithm]| Key::set(json!({ "keys": keys }).to_string().as_bytes(), algorithms).unwrap();
    assert_eq!(set(&[Algorithm::Rs256]).len(), 2, "for signing, and of this kind");
    assert_eq!(set(&[Algorithm::Hs256]).len(), 1, "the public key in PEM is no secret");
    let verifier = Verifier::new(&rules(set(&[Algorithm::Rs256, Algorithm::EdDsa])));
    let token = |signer: &Signer, header: Value| signer.token(&header, &claims(json!({})));
    let ann = Ok("ann".to_owned());
    assert_eq!(verifier.buyer(&token(&old, json!({ "kid": "old" }))), ann);
    assert_eq!(verifier.buyer(&token(&new, json!({ "kid": "new" }))), ann);
    assert_eq!(verifier.buyer(&token(&edwards, json!({ "kid": "edwards" }))), ann);
    assert_eq!(verifier.buyer(&token(&new, json!({}))), ann, "without a name, each is tried");
    assert_eq!(verifier.buyer(&token(&new, json!({ "kid": "old" }))), Err(TokenError::Signature));
    for kid in ["newer", "encrypts", "shared", "edwards", ""] {
        assert_eq!(verifier.buyer(&token(&new, json!({ "kid": kid }))), Err(TokenError::Key), "{kid}");
    }
    let no_set = |text: &str| assert!(Key::set(text.as_bytes(), &[Algorithm::Rs256]).is_err(), "{text}");
    ["", "[]", "{}", "{\"keys\": 1}"].into_iter().for_each(no_set);
}

/// A sale whose buyers prove who they are with tokens of this signer.
fn sale(signer: &Signer, more: Value) -> Value {
    let mut buyer = json!({ "from": "jwt", "algorithms": [signer.algorithm()], "audience": "tickets" });
    match signer.algorithm() {
        "HS256" => buyer["secret_file"] = json!(signer.secret_file()),
        _ => buyer["public_key_files"] = json!([signer.public_file()]),
    }
    buyer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "total": 100, "per_buyer": 2, "seed_dialect": true, "buyer": buyer })
}

fn bearing(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

/// A request that the front door leaves to Pingora.
fn unusual(request: Request) -> Request {
    (0..70).fold(request, |request, n| request.header(&format!("X-{n}"), "1"))
}

#[track_caller]
fn is_unauthorized(answer: &Answer, name: &str) {
    assert_eq!((answer.status, answer.problem().as_str()), (401, name), "{answer:?}");
    assert!(answer.header("www-authenticate").is_some_and(|says| says.starts_with("Bearer")), "{answer:?}");
}

#[test]
fn only_buyers_with_a_valid_token_may_buy() {
    for signer in [Signer::hs256(), Signer::eddsa(), Signer::rs256(2048)] {
        let edge = Edge::setup().ticket(sale(&signer, json!({}))).start();
        let (ann, bob) = (signer.token_for("ann"), signer.token_for("bob"));
        for request in [purchase(), unusual(purchase())] {
            let Outcome::Ordered { order, .. } = buy(edge.address(), &bearing(request, &ann)) else {
                panic!("{}: ann has proven it", signer.algorithm());
            };
            assert_eq!(order["buyer"], "ann");
        }
        assert_eq!(buy(edge.address(), &bearing(purchase(), &ann)).name(), "buyer-limit");
        assert!(buy(edge.address(), &bearing(purchase(), &bob)).is_order(), "of which bob knows nothing");
        assert_eq!(edge.ask(&bearing(Request::get("/buy/ticket"), &bob)).json()["code"], 1);

        let expired = signer.token(&json!({}), &json!({ "sub": "eve", "aud": "tickets", "exp": now_s() - 60 }));
        let elsewhere = signer.token(&json!({}), &json!({ "sub": "eve", "aud": "coffee", "exp": now_s() + 60 }));
        let unsigned =
            unsigned(&json!({ "alg": "none" }), &json!({ "sub": "eve", "aud": "tickets", "exp": now_s() + 60 }));
        let others = Signer::hs256().token_for("eve");
        for request in [purchase(), unusual(purchase()), purchase().json(&json!({ "quantity": 1 })).chunked(5)] {
            is_unauthorized(&edge.ask(&request), "token-missing");
            is_unauthorized(&edge.ask(&request.clone().header("Authorization", "Basic YTpi")), "token-missing");
            for (token, reason) in [
                (expired.as_str(), "expired"),
                (elsewhere.as_str(), "audience"),
                (&format!("{unsigned}."), "malformed"),
                (&others, if signer.algorithm() == "HS256" { "signature" } else { "key" }),
            ] {
                let answer = edge.ask(&bearing(request.clone(), token));
                is_unauthorized(&answer, "token-invalid");
                assert_eq!(answer.json()["reason"], reason, "{answer:?}");
            }
        }
        let code = |request: &Request| edge.ask(request).is_our_own().json()["code"].clone();
        assert_eq!(code(&Request::get("/buy/ticket")), -18);
        assert_eq!(code(&bearing(Request::get("/buy/ticket"), &expired)), -19);
        let two = bearing(bearing(purchase(), &ann), &bob);
        assert_eq!(edge.ask(&two).problem(), "bad-request", "who of the two?");
        assert_eq!(edge.sold(), 4);
        // A kept connection goes on after a refusal.
        let mut connection = edge.connect();
        is_unauthorized(&connection.ask(&purchase()), "token-missing");
        assert_eq!(connection.ask(&bearing(purchase(), &signer.token_for("cid"))).status, 201);
    }
}

#[test]
fn a_token_may_stand_in_a_cookie_or_in_another_header() {
    let signer = Signer::eddsa();
    let token = signer.token_for("ann");
    let edge = Edge::setup().ticket(sale(&signer, json!({ "cookie": "session" }))).start();
    let cookies = |value: &str| buy(edge.address(), &purchase().header("Cookie", value)).name().to_owned();
    assert_eq!(cookies(&format!("theme=dark; session={token}; a=b")), "ordered");
    assert_eq!(cookies(&format!("session=\"{token}\"")), "ordered");
    assert_eq!(cookies("theme=dark"), "token-missing");
    assert_eq!(cookies(&format!("xsession={token}")), "token-missing");
    assert_eq!(cookies(&format!("session={token}; session=other")), "bad-request");
    assert_eq!(buy(edge.address(), &bearing(purchase(), &token)).name(), "token-missing");

    let edge = Edge::setup().ticket(sale(&signer, json!({ "header": "X-Ticket-Token", "claim": "name" }))).start();
    let claims = json!({ "name": "ann", "aud": "tickets", "exp": now_s() + 60 });
    let named = signer.token(&json!({}), &claims);
    let outcome = buy(edge.address(), &purchase().header("X-Ticket-Token", &named));
    assert!(matches!(&outcome, Outcome::Ordered { order, .. } if order["buyer"] == "ann"), "{outcome:?}");
    let outcome = buy(edge.address(), &purchase().header("X-Ticket-Token", &token));
    assert_eq!(outcome.name(), "token-invalid", "it has no name");
}

#[test]
fn sold_out_is_answered_before_any_signature_is_checked() {
    let signer = Signer::rs256(2048);
    let mut settings = sale(&signer, json!({}));
    settings["total"] = json!(2);
    let edge = Edge::setup().ticket(settings).start();
    let ann = signer.token_for("ann");
    let with_key = bearing(purchase_with_key("k"), &ann);
    let order = buy(edge.address(), &with_key);
    assert!(order.is_order());
    assert!(buy(edge.address(), &bearing(purchase(), &ann)).is_order());
    let checked = || edge.metric("spikegate_tokens_checked_total", "");
    assert_eq!(checked(), 2);
    let forged = Signer::rs256(2048).token_for("ann");
    for request in [purchase(), unusual(purchase()), purchase_with_key("other")] {
        let tokens = [request.clone(), bearing(request.clone(), "no token"), bearing(request.clone(), &forged)];
        for request in tokens.into_iter().chain([bearing(request, &ann)]) {
            assert_eq!(buy(edge.address(), &request).name(), "sold-out");
        }
    }
    assert_eq!(checked(), 2, "and nothing was");
    // A made order is never denied, not even now; but it is shown to its buyer alone.
    assert_eq!(buy(edge.address(), &with_key).id(), order.id());
    is_unauthorized(&edge.ask(&bearing(purchase_with_key("k"), &forged)), "token-invalid");
    assert_eq!(checked(), 4);
}

#[test]
fn only_a_trusted_proxy_names_the_buyer() {
    let mirror = Backend::start(|request| {
        let said = request.header("x-user-id").unwrap_or("nobody").to_owned();
        request.answer(&said);
        crate::harness::backend::After::KeepOpen
    });
    let edge = Edge::setup()
        .ticket(json!({
            "total": 100, "per_buyer": 1, "seed_dialect": true,
            "buyer": { "from": "trusted_proxies", "header": "X-User-Id" },
        }))
        .proxies_to(json!({ "servers": [{ "address": mirror.address() }] }))
        .set("trusted_proxies", json!(["127.0.0.9"]))
        .start();
    let from = |last: u8| Connection::from(IpAddr::from(Ipv4Addr::new(127, 0, 0, last)), edge.address());
    let ann = |request: Request| request.header("X-User-Id", "ann");
    for request in [purchase(), unusual(purchase()), purchase().json(&json!({}))] {
        for forged in [ann(request.clone()), ann(request.clone()).header("X-Forwarded-For", "127.0.0.9"), request] {
            let answer = from(7).ask(&forged);
            assert_eq!((answer.status, answer.problem().as_str()), (403, "buyer-unknown"), "{answer:?}");
        }
    }
    assert_eq!(from(7).ask(&ann(Request::get("/buy/ticket"))).is_our_own().json()["code"], -20);
    assert_eq!(from(9).ask(&purchase()).problem(), "buyer-unknown", "it does not say");
    let answer = from(9).ask(&ann(purchase()));
    assert_eq!((answer.status, &answer.json()["buyer"]), (201, &json!("ann")), "{answer:?}");
    assert_eq!(from(9).ask(&ann(unusual(purchase()))).problem(), "buyer-limit");
    assert_eq!(edge.sold(), 1);
    // Backends believe the header, too.
    assert_eq!(from(7).ask(&ann(Request::get("/"))).text(), "nobody");
    assert_eq!(from(9).ask(&ann(Request::get("/"))).text(), "ann");
}

#[test]
fn buyer_limits_apply_to_each_proven_buyer() {
    let signer = Signer::hs256();
    let mut settings = sale(&signer, json!({}));
    settings["per_buyer"] = json!(0);
    settings["total"] = json!(1_000);
    settings["buyer_limits"] = json!({ "requests_per_second": 1, "burst": 5 });
    let edge = Edge::setup().ticket(settings).start();
    let (ann, bob) = (signer.token_for("ann"), signer.token_for("bob"));
    let mut connection = edge.connect();
    let refused = (0..60).map(|_| connection.ask(&bearing(purchase(), &ann))).find(|answer| answer.status == 429);
    let answer = refused.expect("more than she may");
    assert_eq!(answer.problem(), "too-many-requests");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(connection.ask(&bearing(purchase(), &bob)).status, 201);
    // Who only claims to be bob takes nothing from him.
    let forged = Signer::hs256().token_for("bob");
    (0..30).for_each(|_| is_unauthorized(&connection.ask(&bearing(purchase(), &forged)), "token-invalid"));
    assert_eq!(connection.ask(&bearing(purchase(), &bob)).status, 201);
    assert!(edge.metric("spikegate_purchases_total", "limited") >= 1);
}

#[test]
fn answers_to_tokens_are_the_same_on_both_ways() {
    let signer = Signer::eddsa();
    let edge = Edge::setup().ticket(sale(&signer, json!({}))).start();
    let close = |request: Request| request.header("Connection", "close");
    for request in [close(purchase()), close(bearing(purchase(), "no token")), close(Request::get("/buy/ticket"))] {
        let without_date = |request: Request| {
            let all = String::from_utf8(everything(edge.address(), &request.bytes())).unwrap();
            all.lines().filter(|line| !line.starts_with("Date:")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(without_date(request.clone()), without_date(unusual(request)));
    }
}
