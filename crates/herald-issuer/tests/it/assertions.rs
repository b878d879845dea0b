//! Who is let in.

use herald_auth::{ASSERTION_LIFETIME, Algorithm, SignedHeader, sign};
use herald_issuer::{ASSERTION_ID_CHARS_MAX, ASSERTION_SKEW};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{ASSERTION_TYPE, Caller, Laptop, new_key};

#[tokio::test]
async fn every_claim_of_an_assertion_counts() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let url = &caller.url;
    for (changes, description) in [
        (json!({"iss": null}), "must have iss and sub"),
        (json!({"sub": null}), "must have iss and sub"),
        (json!({"sub": "other"}), "must be the same"),
        (json!({"iss": "other", "sub": "other"}), "there is no client other"),
        (json!({"iss": "", "sub": ""}), "there is no client"),
        (json!({"aud": null}), "its aud must be"),
        (json!({"aud": "https://helseid-sts.test.nhn.no"}), "its aud must be"),
        (json!({"aud": []}), "its aud must be"),
        (json!({"aud": format!("{url}/connect")}), "its aud must be"),
        (json!({"exp": null}), "must have an exp"),
        (json!({"exp": 1}), "it has expired"),
        (json!({"exp": 9_999_999_999_u64}), "may be at most 60 s ahead"),
        (json!({"exp": "soon"}), "its claims are not"),
        (json!({"nbf": 9_999_999_999_u64}), "its nbf is"),
        (json!({"iat": 9_999_999_999_u64}), "its iat is"),
        (json!({"jti": null}), "must have a jti"),
        (json!({"jti": ""}), "must have a jti"),
        (json!({"jti": "x".repeat(ASSERTION_ID_CHARS_MAX + 1)}), "must have a jti"),
    ] {
        let form = caller.form(&caller.assertion_with(&changes), "");
        let answered = caller.post(form, &[caller.proof(None)]).await;
        answered.assert_refused("invalid_client", description);
    }
    for changes in [
        json!({}),
        json!({"aud": format!("{url}/")}),
        json!({"aud": caller.endpoint()}),
        json!({"aud": ["https://other.example", url]}),
        json!({"nbf": null, "iat": null}),
        json!({"jti": "x".repeat(ASSERTION_ID_CHARS_MAX)}),
    ] {
        caller.ask_with(&caller.assertion_with(&changes), "").await.token();
    }
}

#[tokio::test]
async fn an_assertion_is_valid_for_a_minute_and_a_little_skew() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let skew = i64::try_from(ASSERTION_SKEW.as_secs()).unwrap();
    let lifetime = i64::try_from(ASSERTION_LIFETIME.as_secs()).unwrap();
    // What is slow must not make the test fail: at the lower bound time only brings it closer to a refusal, at the upper
    // one away from it.
    for (ahead, is_taken) in
        [(lifetime + skew, true), (lifetime + skew + 60, false), (1, true), (-skew - 1, false)]
    {
        let exp = Timestamp::now().as_second() + ahead;
        let assertion = caller.assertion_with(&json!({"exp": exp}));
        let answered = caller.post(caller.form(&assertion, ""), &[caller.proof(None)]).await;
        let expected = if is_taken { "use_dpop_nonce" } else { "invalid_client" };
        assert_eq!(answered.body["error"], expected, "{ahead}: {}", answered.body);
    }
}

#[tokio::test]
async fn an_assertion_is_used_once_and_a_question_for_a_nonce_uses_it_up() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let assertion = caller.assertion();
    let nonce = caller.nonce().await;
    let form = caller.form(&assertion, "");
    caller.post(form.clone(), &[caller.proof(Some(&nonce))]).await.token();
    let again = caller.post(form, &[caller.proof(Some(&nonce))]).await;
    again.assert_refused("invalid_client", "jti was used before");

    let form = caller.form(&caller.assertion(), "");
    let asked = caller.post(form.clone(), &[caller.proof(None)]).await;
    asked.assert_refused("use_dpop_nonce", "");
    let again = caller.post(form, &[caller.proof(Some(&nonce))]).await;
    again.assert_refused("invalid_client", "jti was used before");
}

#[tokio::test]
async fn only_the_clients_own_keys_sign_for_it() {
    let Laptop { issuer: _issuer, mut caller } = Laptop::start().await;
    let own = caller.assertion();
    caller.key = new_key().named("a-key");
    let refused = caller.ask_with_other_nonce(&own).await;
    refused.assert_refused("invalid_client", "must be signed with a key of laptop");

    // Neither without a signature, nor with what is public as a secret.
    let (signed, signature) = own.rsplit_once('.').unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    let none = herald_auth::encode(br#"{"alg":"none","typ":"JWT"}"#);
    for text in [
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ] {
        let answered = caller.post(caller.form(&text, ""), &[caller.proof(None)]).await;
        answered.assert_refused("invalid_client", "the client assertion is not accepted");
    }
}

impl Caller {
    /// Signs with the key that is now the caller's; `own` is good still, so that the difference is the key.
    async fn ask_with_other_nonce(&self, own: &str) -> crate::support::Answered {
        let asked = self.post(self.form(own, ""), &[self.proof(None)]).await;
        let nonce = asked.nonce().unwrap().to_owned();
        self.post(self.form(&self.assertion(), ""), &[self.proof(Some(&nonce))]).await
    }
}

#[tokio::test]
async fn the_name_of_the_key_does_not_matter() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let now = Timestamp::now().as_second();
    for kid in [None, Some("a-key"), Some("nobody-knows")] {
        let header = SignedHeader { typ: "client-authentication+jwt", kid, jwk: None };
        let claims = json!({
            "iss": "laptop", "sub": "laptop", "aud": caller.url, "exp": now + 30,
            "jti": format!("{kid:?}"),
        });
        let assertion = sign(&caller.key, Algorithm::Es256, &header, &claims).unwrap();
        caller.ask_with(&assertion, "").await.token();
    }
}

#[tokio::test]
async fn the_form_must_say_what_it_is() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let assertion = || caller.assertion();
    let usual = || caller.form(&assertion(), "");
    let cases: Vec<(String, &str, &str)> = vec![
        (String::new(), "invalid_request", "grant_type is missing"),
        ("grant_type=%FF".into(), "invalid_request", "UTF-8"),
        (usual().replace("client_credentials", "password"), "unsupported_grant_type", ""),
        (usual() + "&grant_type=client_credentials", "invalid_request", "once"),
        ("grant_type=client_credentials".into(), "invalid_client", "private_key_jwt only"),
        (usual().replace(ASSERTION_TYPE, "x"), "invalid_client", "client_assertion_type must be"),
        (usual() + "&client_id=other", "invalid_client", "client_id in the form is another"),
        (usual() + "&scope=a&scope=b", "use_dpop_nonce", ""),
    ];
    for (form, error, description) in cases {
        let answered = caller.post(form, &[caller.proof(None)]).await;
        answered.assert_refused(error, description);
        assert_eq!(answered.headers["cache-control"], "no-store");
    }
    caller.ask_with(&assertion(), "&client_id=laptop&resource=x&other=y").await.token();
    let twice = caller.ask_with(&assertion(), "&scope=a&scope=b").await;
    twice.assert_refused("invalid_request", "scope must be there once");

    let post = caller.http.post(caller.endpoint()).header("content-type", "application/json");
    let answer = post.body(usual()).send().await.unwrap();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["error"], "invalid_request");
}
